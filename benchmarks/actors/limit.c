/* Upper limit of the rates: RabbitMQ and librabbitmq with no other code. Bodies are not validated.
 *
 *   limit <role> <host> <port> <user> <password> <vhost>      role: serve, ask, publish, consume
 *
 * The driver's protocol is that of the Python actors (benchmarks/actors/stage.py): the program
 * reads "verb key=value ..." lines, and writes JSON.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHANNEL = 1, PREFETCH = 200, SIZE = 300, MOST_WATCHED = 16, MOST_LATENCIES = 1 << 21 };

static const char *ECHO_QUEUE = "limit.echo", *FLOW_QUEUE = "limit.flow", *REPLY_TO = "amq.rabbitmq.reply-to";
static amqp_connection_state_t link_;

/* --- Measurement --- */

static int watched[MOST_WATCHED], watching;
static double cpu_before[MOST_WATCHED], began, latencies[MOST_LATENCIES];

static double clock_of(clockid_t id) {
    struct timespec t;
    return clock_gettime(id, &t) ? 0 : t.tv_sec + t.tv_nsec * 1e-9;
}

static double now(void) { return clock_of(CLOCK_MONOTONIC); }

static double cpu_clock(int pid) { return clock_of((clockid_t)((~(unsigned)pid << 3) | 2)); }

static void begin(void) {
    for (int i = 0; i < watching; i++) cpu_before[i] = cpu_clock(watched[i]);
    began = now();
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(long count, double ended, long measured) {
    printf("{\"count\": %ld, \"seconds\": %.6f, \"began\": %.6f, \"ended\": %.6f, \"cpu\": [", count, ended - began, began, ended);
    for (int i = 0; i < watching; i++) printf("%s%.6f", i ? ", " : "", cpu_clock(watched[i]) - cpu_before[i]);
    printf("]");
    if (measured > 0) {
        qsort(latencies, measured, sizeof *latencies, ascending);
        printf(", \"p50\": %.4f, \"p99\": %.4f, \"p999\": %.4f", latencies[measured / 2] * 1e3,
               latencies[(long)(measured * 0.99)] * 1e3, latencies[(long)(measured * 0.999)] * 1e3);
    }
    printf("}\n");
    fflush(stdout);
}

/* --- Driver and broker --- */

static void fail(const char *what) {
    printf("{\"error\": \"%s\"}\n", what);
    fflush(stdout);
    exit(1);
}

static void check(const char *what) {
    if (amqp_get_rpc_reply(link_).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double word(const char *line, const char *key, double otherwise) {
    char sought[32];
    snprintf(sought, sizeof sought, " %s=", key);
    const char *found = strstr(line, sought);
    return found ? atof(found + strlen(sought)) : otherwise;
}

static void watch(const char *line) {
    const char *at = strstr(line, " watch=");
    watching = 0;
    for (at = at ? at + 7 : NULL; at && *at >= '0' && *at <= '9' && watching < MOST_WATCHED; at = *at == ',' ? at + 1 : NULL)
        watched[watching++] = (int)strtol(at, (char **)&at, 10);
}

static void connect_(char **v) {
    link_ = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(link_);
    if (!socket || amqp_socket_open(socket, v[2], atoi(v[3]))) fail("no connection");
    if (amqp_login(link_, v[6], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, v[4], v[5]).reply_type != AMQP_RESPONSE_NORMAL) fail("login");
    amqp_channel_open(link_, CHANNEL);
    check("channel");
}

static amqp_bytes_t text(const char *value) { return amqp_cstring_bytes(value); }

static void next(amqp_envelope_t *envelope) {
    amqp_maybe_release_buffers(link_);
    if (amqp_consume_message(link_, envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) fail("consume");
    if (envelope->message.body.len != SIZE) fail("a body of another size");
}

/* --- Roles --- */

static void serve(void) {
    amqp_queue_declare(link_, CHANNEL, text(ECHO_QUEUE), 0, 0, 0, 1, amqp_empty_table);
    check("declare");
    amqp_basic_qos(link_, CHANNEL, 0, PREFETCH, 0);
    amqp_basic_consume(link_, CHANNEL, text(ECHO_QUEUE), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check("consume");
    printf("{\"ready\": true}\n");
    fflush(stdout);
    for (;;) {
        amqp_envelope_t asked;
        next(&asked);
        amqp_basic_properties_t answer = {0};
        answer._flags = AMQP_BASIC_CORRELATION_ID_FLAG;
        answer.correlation_id = asked.message.properties.correlation_id;
        amqp_basic_publish(link_, CHANNEL, amqp_empty_bytes, asked.message.properties.reply_to, 0, 0, &answer, asked.message.body);
        amqp_basic_ack(link_, CHANNEL, asked.delivery_tag, 0);
        amqp_destroy_envelope(&asked);
    }
}

static void ask(void) {
    static double sent_at[MOST_LATENCIES];
    char line[512], body[SIZE];
    memset(body, 'x', SIZE);
    amqp_basic_consume(link_, CHANNEL, text(REPLY_TO), amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
    check("consume");
    printf("{\"ready\": true}\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long in_flight = (long)word(line, "in_flight", 1), sent = 0, got = 0;
        watch(line);
        begin();
        double until = began + word(line, "seconds", 1), t = began;
        while (t < until || got < sent) {
            while (t < until && sent - got < in_flight && sent < MOST_LATENCIES) {
                char id[24];
                snprintf(id, sizeof id, "%ld", sent);
                amqp_basic_properties_t properties = {0};
                properties._flags = AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG;
                properties.correlation_id = text(id);
                properties.reply_to = text(REPLY_TO);
                amqp_bytes_t bytes = {SIZE, body};
                sent_at[sent++] = now();
                amqp_basic_publish(link_, CHANNEL, amqp_empty_bytes, text(ECHO_QUEUE), 0, 0, &properties, bytes);
            }
            if (got == sent) break;
            amqp_envelope_t reply;
            next(&reply);
            char id[24] = {0};
            amqp_bytes_t its = reply.message.properties.correlation_id;
            if (its.len >= sizeof id) fail("a reply without our id");
            memcpy(id, its.bytes, its.len);
            t = now();
            latencies[got++] = t - sent_at[atol(id)];
            amqp_destroy_envelope(&reply);
        }
        report(got, now(), got);
    }
}

static amqp_table_t quorum(void) {
    static amqp_table_entry_t entry;
    entry.key = text("x-queue-type");
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = text("quorum");
    return (amqp_table_t){1, &entry};
}

static void publish(void) {
    char line[512], body[SIZE];
    memset(body, 'x', SIZE);
    amqp_confirm_select(link_, CHANNEL);
    check("confirms");
    printf("{\"ready\": true}\n");
    fflush(stdout);
    uint64_t tag = 0, settled = 0;
    while (fgets(line, sizeof line, stdin)) {
        long in_flight = (long)word(line, "in_flight", 200), count = (long)word(line, "count", 0);
        uint64_t first = tag;
        watch(line);
        begin();
        double until = began + word(line, "seconds", 1e9);
        for (;;) {
            while ((count ? (long)(tag - first) < count : now() < until) && (long)(tag - settled) < in_flight) {
                amqp_basic_properties_t properties = {0};
                properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
                properties.delivery_mode = 2;
                amqp_bytes_t bytes = {SIZE, body};
                amqp_basic_publish(link_, CHANNEL, amqp_empty_bytes, text(FLOW_QUEUE), 0, 0, &properties, bytes);
                tag++;
            }
            if (settled == tag) break;
            amqp_frame_t frame;
            amqp_maybe_release_buffers(link_);
            if (amqp_simple_wait_frame(link_, &frame) != AMQP_STATUS_OK) fail("confirm");
            if (frame.frame_type != AMQP_FRAME_METHOD) continue;
            if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("not confirmed");
            amqp_basic_ack_t *ack = frame.payload.method.decoded;
            /* One queue confirms in order, so each single ack is that of the oldest message. */
            settled = ack->multiple ? ack->delivery_tag : settled + 1;
        }
        report((long)(tag - first), now(), 0);
    }
}

static void consume(void) {
    char line[512];
    amqp_basic_qos(link_, CHANNEL, 0, PREFETCH, 0);
    printf("{\"ready\": true}\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long count = (long)word(line, "count", 1);
        double ended = 0;
        watch(line);
        amqp_basic_consume(link_, CHANNEL, text(FLOW_QUEUE), text("limit"), 0, 0, 0, amqp_empty_table);
        check("consume");
        for (long got = 0; got < count; got++) {
            amqp_envelope_t event;
            next(&event);
            if (got == 0) begin();
            amqp_basic_ack(link_, CHANNEL, event.delivery_tag, 0);
            amqp_destroy_envelope(&event);
            ended = now();
        }
        report(count, ended, 0);
        amqp_basic_cancel(link_, CHANNEL, text("limit"));
        check("cancel");
    }
}

int main(int arguments, char **v) {
    if (arguments < 7) return 2;
    connect_(v);
    if (!strcmp(v[1], "serve")) serve();
    if (!strcmp(v[1], "ask")) ask();
    amqp_queue_declare(link_, CHANNEL, text(FLOW_QUEUE), 0, 1, 0, 0, quorum());
    check("declare");
    if (!strcmp(v[1], "publish")) publish();
    if (!strcmp(v[1], "consume")) consume();
    return 0;
}
