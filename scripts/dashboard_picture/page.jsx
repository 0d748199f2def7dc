// Draws the panels of the dashboard with the components of @grafana/ui and the values in values.json.

import 'uplot/dist/uPlot.min.css';

import { createTheme, dateTime, FieldType, getDisplayProcessor, toDataFrame } from '@grafana/data';
import { BigValue, PanelChrome, ThemeContext, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import React from 'react';
import { createRoot } from 'react-dom/client';

import values from './values.json';

const theme = createTheme({ colors: { mode: 'light' } });
// Sizes of Grafana's grid in pixels: a row, and the gap below a panel.
const WIDTH = 1500, COLUMN = WIDTH / 24, ROW = 30, GAP = 8;
const [from, to] = [dateTime(values.start * 1000), dateTime(values.end * 1000)];
const timeRange = { from, to, raw: { from, to } };

function legend(format, labels) {
  return format.replace(/{{(\w+)}}/g, (_, label) => labels[label] ?? '');
}

function field(panel, name, type, list, color) {
  const defaults = panel.fieldConfig.defaults;
  const steps = defaults.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
  const config = { ...defaults, displayName: name, thresholds: { ...defaults.thresholds, steps } };
  if (color) config.color = { mode: 'fixed', fixedColor: color };
  const made = { name, type, values: list, config };
  made.display = getDisplayProcessor({ field: made, theme, timeZone: 'utc' });
  return made;
}

function Lines({ panel, data, width, height }) {
  const palette = theme.visualization.palette; // that of the color mode palette-classic
  let number = 0;
  const frames = data.flatMap(({ legend: format, result }) =>
    result.map(({ metric, values: points }) => {
      const time = { name: 'Time', type: FieldType.time, config: {}, values: points.map(([at]) => at * 1000) };
      const numbers = points.map(([, text]) => (Number.isFinite(Number(text)) ? Number(text) : null));
      const name = legend(format, metric);
      const line = field(panel, name, FieldType.number, numbers, palette[number++ % palette.length]);
      return toDataFrame({ fields: [time, line] });
    })
  );
  if (frames.length === 0) return <p>No data</p>;
  return (
    <TimeSeries
      {...{ frames, width, height, timeRange }}
      timeZone="utc"
      legend={panel.options.legend}
      options={{}}
    />
  );
}

function Numbers({ panel, data, width, height }) {
  const shown = data.flatMap(({ legend: format, result }) =>
    result.map(({ metric, value }) => {
      const title = legend(format, metric);
      return { ...field(panel, title, FieldType.number, []).display(Number(value[1])), title };
    })
  );
  return (
    <div style={{ display: 'flex', gap: 4 }}>
      {shown.map((value) => (
        <BigValue
          key={value.title}
          {...{ value, height, theme }}
          {...panel.options}
          width={width / shown.length - 4}
        />
      ))}
    </div>
  );
}

function Rows({ panel, data, width, height }) {
  const { indexByName, renameByName } = panel.transformations[0].options;
  const rows = data.flatMap(({ result }) => result);
  const fields = Object.keys(indexByName).map((name) =>
    name === 'Value'
      ? field(panel, renameByName[name], FieldType.number, rows.map(({ value }) => Number(value[1])))
      : field(panel, renameByName[name] ?? name, FieldType.string, rows.map(({ metric }) => metric[name] ?? ''))
  );
  return (
    <TableNG
      {...{ width, height, timeRange }}
      data={toDataFrame({ fields })}
      structureRev={1}
      fieldConfig={panel.fieldConfig}
      getActions={() => []}
    />
  );
}

const BODIES = { timeseries: Lines, stat: Numbers, table: Rows };

function Panel({ panel, data }) {
  const { x, y, w, h } = panel.gridPos;
  const [width, height] = [w * COLUMN - GAP, h * (ROW + GAP) - GAP];
  const style = { position: 'absolute', left: x * COLUMN, top: y * (ROW + GAP), width, height };
  if (panel.type === 'row') return <div className="row" style={style}>⌄ {panel.title}</div>;
  const Body = BODIES[panel.type];
  return (
    <div style={style}>
      <PanelChrome {...{ width, height }} title={panel.title} padding={panel.type === 'table' ? 'none' : 'md'}>
        {(innerWidth, innerHeight) =>
          Body ? (
            <Body {...{ panel, data }} width={innerWidth} height={innerHeight} />
          ) : (
            <p>@grafana/ui has no component for a {panel.type}.</p>
          )
        }
      </PanelChrome>
    </div>
  );
}

createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <div style={{ position: 'relative', width: WIDTH }}>
      {values.panels.map(({ panel, data }) => (
        <Panel key={panel.id} {...{ panel, data }} />
      ))}
    </div>
  </ThemeContext.Provider>
);
