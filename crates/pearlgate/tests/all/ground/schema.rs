use std::collections::{BTreeMap, BTreeSet};

use foundation::db::{MigrationState, Statement};
use pearlgate::app::MIGRATIONS;

use crate::both;
use crate::support::{Engine, TestApp};

foundation::statements! {
    COLUMNS_SQLITE = "SELECT m.name, c.name, c.type, CAST(c.\"notnull\" AS INTEGER) FROM sqlite_master m, pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid";
    COLUMNS_POSTGRES = "SELECT table_name::text, column_name::text, data_type::text,
            CAST(CASE WHEN is_nullable = 'NO' THEN 1 ELSE 0 END AS BIGINT)
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";
    COLLATION_POSTGRES = "SELECT table_name::text, column_name::text FROM information_schema.columns
        WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C' AND table_name <> 'schema_migrations'";
    INDEXES_SQLITE = "SELECT m.name, CAST(i.\"unique\" AS INTEGER), (SELECT group_concat(c.name) FROM pragma_index_info(i.name) c)
        FROM sqlite_master m, pragma_index_list(m.name) i WHERE m.type = 'table'";
    KEYS_SQLITE = "SELECT m.name, 1, (SELECT group_concat(c.name) FROM (SELECT * FROM pragma_table_info(m.name) WHERE pk > 0 ORDER BY pk) c)
        FROM sqlite_master m WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
    INDEXES_POSTGRES = "SELECT t.relname::text, CAST(CASE WHEN i.indisunique THEN 1 ELSE 0 END AS BIGINT),
            (SELECT string_agg(a.attname::text, ',' ORDER BY k.ord) FROM unnest(i.indkey) WITH ORDINALITY k(num, ord)
                JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.num)
        FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = 'public'";
    FOREIGN_SQLITE = "SELECT m.name, f.\"from\", f.\"table\", f.on_delete FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'";
    FOREIGN_POSTGRES = "SELECT c.conrelid::regclass::text, a.attname::text, c.confrelid::regclass::text,
            CASE c.confdeltype WHEN 'c' THEN 'CASCADE' ELSE c.confdeltype::text END
        FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) WHERE c.contype = 'f'";
}

type Columns = Vec<(String, String, String, bool)>;

async fn columns(app: &TestApp) -> Columns {
    let statement = if app.engine == Engine::Sqlite { &COLUMNS_SQLITE } else { &COLUMNS_POSTGRES };
    app.app.db.read_one(move |tx| tx.all(statement, &[])).await.unwrap()
}

both! {
    async fn no_column_may_be_null(app: &TestApp) {
        let columns = columns(app).await;
        assert!(columns.len() > 80, "{}", columns.len());
        let nullable: Vec<_> = columns.iter().filter(|(.., not_null)| !not_null).collect();
        assert!(nullable.is_empty(), "columns that may be null: {nullable:?}");
    }
}

both! {
    async fn every_table_of_the_design_is_there(app: &TestApp) {
        let tables: BTreeSet<String> = columns(app).await.into_iter().map(|(table, ..)| table).collect();
        for table in ["users", "user_emails", "verified_emails", "password_credentials", "email_verification_tokens",
            "password_reset_tokens", "email_change_tokens", "sessions", "refresh_tokens", "ended_sessions", "suspensions",
            "audit_events", "jobs", "dead_jobs", "signing_keys", "idempotency_keys"] {
            assert!(tables.contains(table), "{table}");
        }
    }
}

#[derive(Debug, PartialEq)]
struct Shape {
    columns: BTreeMap<(String, String), String>,
    indexes: BTreeSet<(String, bool, String)>,
    foreign: BTreeSet<(String, String, String, String)>,
}

async fn shape(app: &TestApp) -> Shape {
    let sqlite = app.engine == Engine::Sqlite;
    let read = |statement: &'static Statement| {
        app.app.db.read_one(move |tx| tx.all::<(String, bool, String)>(statement, &[]))
    };
    let indexes = if sqlite {
        // What a primary key is by itself in one catalogue has an index of its own in the other.
        [read(&INDEXES_SQLITE).await.unwrap(), read(&KEYS_SQLITE).await.unwrap()].concat()
    } else {
        read(&INDEXES_POSTGRES).await.unwrap()
    };
    let foreign = if sqlite { &FOREIGN_SQLITE } else { &FOREIGN_POSTGRES };
    let normal = |kind: String| match kind.to_uppercase().as_str() {
        "INTEGER" | "BIGINT" => "number".to_owned(),
        "BLOB" | "BYTEA" => "bytes".to_owned(),
        "TEXT" => "text".to_owned(),
        other => panic!("a column of type {other}"),
    };
    Shape {
        columns: columns(app).await.into_iter().map(|(t, c, kind, _)| ((t, c), normal(kind))).collect(),
        indexes: indexes.into_iter().collect(),
        foreign: app.app.db.read_one(move |tx| tx.all(foreign, &[])).await.unwrap().into_iter().collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_two_schemas_agree() {
    let sqlite = TestApp::start(Engine::Sqlite).await;
    let postgres = TestApp::start(Engine::Postgres).await;
    let (one, other) = (shape(&sqlite).await, shape(&postgres).await);
    assert_eq!(one.columns, other.columns);
    assert_eq!(one.indexes, other.indexes);
    assert_eq!(one.foreign, other.foreign);
    assert!(
        one.foreign.len() >= 11 && one.foreign.iter().all(|(.., on_delete)| on_delete == "CASCADE"),
        "{:?}",
        one.foreign
    );
    let loose: Vec<(String, String)> =
        postgres.app.db.read_one(|tx| tx.all(&COLLATION_POSTGRES, &[])).await.unwrap();
    assert!(loose.is_empty(), "text that sorts by somebody's language: {loose:?}");
    sqlite.finish().await;
    postgres.finish().await;
}

both! {
    async fn every_statement_is_one_that_the_database_takes(app: &TestApp) {
        let statements = pearlgate::statements();
        let count = statements.len();
        assert!(count > 60, "{count}");
        assert_eq!(app.app.db.prepare_all(statements).await.unwrap(), count);
    }
}

both! {
    async fn foreign_keys_are_enforced(app: &TestApp) {
        let orphan = "INSERT INTO verified_emails (user_id, verified_at) VALUES (".to_owned()
            + if app.engine == Engine::Sqlite { "x'00'" } else { "'\\x00'" } + ", 1)";
        assert!(app.app.db.batch(orphan).await.is_err());
        app.person("ada@example.com").await;
        app.sql("DELETE FROM users").await;
        for table in ["user_emails", "verified_emails", "password_credentials", "sessions", "refresh_tokens"] {
            let sql: &'static str = Box::leak(format!("SELECT COUNT(*) FROM {table}").into_boxed_str());
            assert_eq!(app.count(sql).await, 0, "{table}");
        }
    }
}

both! {
    async fn a_schema_that_is_not_ours_is_refused(app: &TestApp) {
        let states = |status: Vec<(String, MigrationState)>| status.into_iter().map(|(_, state)| state).collect::<Vec<_>>();
        let status = app.app.db.migration_status(MIGRATIONS).await.unwrap();
        assert!(states(status).iter().all(|state| *state == MigrationState::Applied));
        assert!(app.app.db.migrate(MIGRATIONS, app.clock.now()).await.unwrap().is_empty(), "a second time changes nothing");

        app.sql("INSERT INTO schema_migrations (name, checksum, applied_at) SELECT '9999_future', checksum, 1 FROM schema_migrations WHERE name LIKE '0001%'").await;
        let newer = app.app.db.migrate(MIGRATIONS, app.clock.now()).await.unwrap_err().to_string();
        assert!(newer.contains("9999_future") && newer.contains("newer version"), "{newer}");
        app.sql("DELETE FROM schema_migrations WHERE name = '9999_future'").await;

        app.sql("UPDATE schema_migrations SET checksum = (SELECT checksum FROM schema_migrations WHERE name LIKE '0002%') WHERE name LIKE '0001%'").await;
        let drift = app.app.db.migrate(MIGRATIONS, app.clock.now()).await.unwrap_err().to_string();
        assert!(drift.contains("0001_people") && drift.contains("changed"), "{drift}");
    }
}

/// What a request asks is served by an index. Read from SQLite's plans: what scans a whole table there is a
/// statement that has none on PostgreSQL either, since the indexes agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_request_reads_a_whole_table() {
    let app = TestApp::start(Engine::Sqlite).await;
    // A signing key is one row or two, providers and webhooks are a handful (and the first one is enough to know that there
    // is one); the other lists are for operators and tests.
    let excused = [
        "KEYS",
        "PROVIDERS",
        "ALL_DISABLED",
        "COUNT",
        "DEAD",
        "ENDPOINTS",
        "ALL_SECRETS",
        "SWEEP_SECRETS",
        "NEXT_NUMBER",
        "WAITING_IN",
    ];
    // What an operator does to a provider now and then.
    let operators = [
        // Roles are few, and read whole when one changes.
        "ROLES",
        "PARENTS",
        "PERMISSIONS",
        "EFFECTS",
        "DEFAULTS",
        "CLEAR_DEFAULTS",
        "GRANT_DEFAULTS",
        "NO_SETUP_LINK",
        "END_SIGN_INS",
        "END_CODES",
        "END_INCOMPLETE",
        "END_TICKETS",
        "END_LINKS",
        "END_PENDING",
        "END_HALVES",
    ];
    let file = rusqlite::Connection::open(app.dir.path().join("pearlgate.db")).unwrap();
    let mut scans = Vec::new();
    for statement in pearlgate::statements()
        .into_iter()
        .filter(|s| !excused.contains(&s.name) && !operators.contains(&s.name))
    {
        let mut plan = file.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.text)).unwrap();
        for place in 1..=plan.parameter_count() {
            plan.raw_bind_parameter(place, 1i64).unwrap();
        }
        let mut rows = plan.raw_query();
        while let Some(row) = rows.next().unwrap() {
            let step: String = row.get(3).unwrap();
            if step.starts_with("SCAN") && !step.contains("USING") && !step.contains("CONSTANT ROW") {
                scans.push(format!("{}: {step}", statement.name));
            }
        }
    }
    assert!(scans.is_empty(), "{scans:#?}");
    app.finish().await;
}
