from tests.properties import as_here

as_here()
