//! Databases of their own for tests, on the PostgreSQL that `cargo xtask test` started.

use data_encoding::HEXLOWER;
use foundation::db::{Db, PostgresOptions};
use foundation::kernel::sha256;
use pearlgate::app::MIGRATIONS;
use tokio::sync::OnceCell;

use super::START;

/// What `cargo xtask test` tells the tests.
pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `cargo xtask test`, or `cargo xtask services` in another terminal and use what it prints")
    })
}

pub struct PostgresDatabase {
    pub url: String,
    name: String,
}

impl PostgresDatabase {
    /// An empty one.
    pub async fn create() -> Self {
        Self::create_with("").await
    }

    /// One that has the schema, copied: to build it anew takes longer than most stories.
    pub async fn prepared() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(template).await;
        Self::create_with(&format!("TEMPLATE {template} STRATEGY file_copy")).await
    }

    async fn create_with(how: &str) -> Self {
        let bytes = foundation::kernel::Entropy::System.bytes::<8>();
        let name = format!("t_{:016x}", u64::from_le_bytes(bytes));
        admin(format!("CREATE DATABASE {name} {how}")).await;
        Self { url: address(&name), name }
    }

    pub async fn drop(self) {
        admin(format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

/// The database that [`PostgresDatabase::prepared`] copies: one for each schema, made by whoever needs it first.
async fn template() -> String {
    let text: String = MIGRATIONS.iter().map(|migration| migration.postgres).collect();
    let schema = HEXLOWER.encode(&sha256(text.as_bytes()).as_bytes()[..8]);
    let (done, raw) = (format!("template_{schema}"), PostgresDatabase::create().await);
    let db = connect(&raw.url);
    db.migrate(MIGRATIONS, START).await.unwrap();
    drop(db);
    // Another process may be as far: the first one's is kept. PostgreSQL waits for our connections to go.
    let lost = admin_may_fail(format!("ALTER DATABASE {} RENAME TO {done}", raw.name)).await;
    if let Err(why) = lost {
        assert!(why.code() == Some(&postgres::error::SqlState::DUPLICATE_DATABASE), "{why:?}");
        raw.drop().await;
    }
    done
}

/// What a server of ours has of a database.
pub fn connect(url: &str) -> Db {
    Db::postgres(&PostgresOptions { url: url.to_owned(), ca_file: None, connections: 8 }).unwrap()
}

fn address(name: &str) -> String {
    let base = environment("PEARLGATE_TEST_POSTGRES");
    let (server, _) = base.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

async fn admin(sql: String) {
    admin_may_fail(sql).await.unwrap();
}

async fn admin_may_fail(sql: String) -> Result<(), postgres::Error> {
    let url = environment("PEARLGATE_TEST_POSTGRES");
    let done = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client.batch_execute(&sql)
    });
    tokio::task::spawn_blocking(move || done.join().unwrap()).await.unwrap()
}
