//! Databases of their own for tests, on the PostgreSQL that `cargo xtask test` started.

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
    pub async fn create() -> Self {
        let base = environment("PEARLGATE_TEST_POSTGRES");
        let bytes = foundation::kernel::Entropy::System.bytes::<8>();
        let name = format!("t_{:016x}", u64::from_le_bytes(bytes));
        admin(format!("CREATE DATABASE {name}")).await;
        let (server, _) = base.rsplit_once('/').unwrap();
        Self { url: format!("{server}/{name}"), name }
    }

    pub async fn drop(self) {
        admin(format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

async fn admin(sql: String) {
    let url = environment("PEARLGATE_TEST_POSTGRES");
    let done = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client.batch_execute(&sql).unwrap();
    });
    tokio::task::spawn_blocking(move || done.join().unwrap()).await.unwrap();
}
