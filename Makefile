# stream_engine: continuous windowed aggregation over Kafka, inside PostgreSQL
#
#   make            builds both libraries: stream_engine (preloaded) and
#                   stream_engine_source (librdkafka, simdjson)
#   make install    into the server that PG_CONFIG names (DESTDIR= works)
#   make lint       formatting and house rules
#   make FAILPOINTS=1   with failpoints, for the crash tests

EXTENSION = stream_engine
EXTVERSION = 1.0
MODULE_big = stream_engine
OBJS = $(patsubst %.c,%.o,$(sort $(filter-out src/source/%,$(wildcard src/*/*.c)))) src/source/vector.o
SE_HEADERS = $(wildcard src/*/*.h)

SQL_PARTS = $(sort $(wildcard src/*/*.sql))
DATA_built = $(EXTENSION)--$(EXTVERSION).sql
EXTRA_CLEAN = $(DATA_built)

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -O2
ifdef FAILPOINTS
PG_CPPFLAGS += -DSE_FAILPOINTS
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(SE_HEADERS)

# The engine's files are concatenated in the order of their folders' needs.
$(EXTENSION)--$(EXTVERSION).sql: $(SQL_PARTS)
	cat $(addprefix $(srcdir)/src/,engine/engine.sql source/source.sql window/window.sql catalog/tables.sql catalog/catalog.sql query/query.sql reader/reader.sql catalog/views.sql state/state.sql) > $@

.PHONY: source source-install source-clean lint
all: source
source:
	$(MAKE) -C $(srcdir)/src/source PG_CONFIG=$(PG_CONFIG) all
install: source-install
source-install: source
	$(MAKE) -C $(srcdir)/src/source PG_CONFIG=$(PG_CONFIG) install
clean: source-clean
source-clean:
	$(MAKE) -C $(srcdir)/src/source PG_CONFIG=$(PG_CONFIG) clean
lint:
	$(srcdir)/test/lint.sh
