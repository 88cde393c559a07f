//! Throwaway servers on free ports of 127.0.0.1, and how tests find them.

mod household;
mod port;
mod postgres;
mod redis;
mod tls;

use std::process::Command;

use crate::failure::Outcome;
use crate::parts::Parts;
use household::Household;

/// What PostgreSQL promises about what it has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Nothing that outlives the machine: for tests.
    None,
    /// What PostgreSQL promises by default: for measurements.
    Full,
}

/// The running servers. They end when this is dropped, and also when we are killed.
pub(crate) struct Services {
    house: Household,
    environment: Vec<(&'static str, String)>,
}

impl Services {
    /// Starts everything and waits until it answers.
    pub(crate) fn start(parts: &Parts, durability: Durability) -> Outcome<Self> {
        let mut house = Household::found(durability)?;
        let tls = tls::make(house.dir(), &parts.openssl)?;
        let postgres = postgres::start(&mut house, parts, &tls, durability)?;
        let redis = redis::start(&mut house, parts)?;
        let path = |path: &std::path::Path| path.display().to_string();
        let environment = vec![
            ("PEARLGATE_TEST_POSTGRES", postgres),
            ("PEARLGATE_TEST_REDIS", redis),
            ("PEARLGATE_TEST_REDIS_SERVER", path(&parts.redis)),
            ("PEARLGATE_TEST_OATHTOOL", path(&parts.oathtool)),
            ("PEARLGATE_TEST_CHROMIUM", path(&parts.chromium)),
            ("PEARLGATE_TEST_PASSKEYS_JS", path(&parts.passkeys_js)),
            ("PEARLGATE_TEST_PROVIDER_JS", path(&parts.provider_js)),
            ("PEARLGATE_TEST_SOCIAL_JS", path(&parts.social_js)),
            ("PEARLGATE_TEST_WEBHOOKS_JS", path(&parts.webhooks_js)),
            ("PEARLGATE_TEST_CA", path(&tls.ca)),
            ("PEARLGATE_TEST_CERT", path(&tls.cert)),
            ("PEARLGATE_TEST_KEY", path(&tls.key)),
            ("PEARLGATE_TEST_PYTHON", path(&parts.python)),
            ("PEARLGATE_TEST_SMTP", path(&parts.smtp)),
            ("PEARLGATE_TEST_NODE", path(&parts.node)),
            ("PEARLGATE_TEST_FOREIGN_JS", path(&parts.foreign_js)),
            ("PEARLGATE_TEST_FOREIGN_PY", path(&parts.foreign_py)),
            ("PEARLGATE_TEST_EXPRESS", path(&parts.express)),
            ("PEARLGATE_TEST_PG_BIN", path(&parts.postgres)),
            ("PEARLGATE_TEST_PG_USER", parts.postgres_user.as_ref().map_or("", |user| user.name).to_owned()),
        ];
        Ok(Self { house, environment })
    }

    /// The variables by which tests and benches find the servers.
    pub(crate) fn environment(&self) -> &[(&'static str, String)] {
        &self.environment
    }

    /// Runs a command with that environment. If we are killed meanwhile, so is everything it has started.
    pub(crate) fn run(&mut self, command: &mut Command, remedy: &str) -> Outcome {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.house.run(command, remedy)
    }
}
