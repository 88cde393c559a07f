//! What the tests need on this machine: found, or installed, or asked for.

mod apt;
mod node;
mod user;
mod venv;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Outcome};
use crate::process::find;
use crate::repo::Repo;
pub(crate) use user::SystemUser;

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The folder of `initdb`, `postgres` and `psql`.
    pub(crate) postgres: PathBuf,
    /// `redis-server`.
    pub(crate) redis: PathBuf,
    /// `oathtool`, an authenticator app.
    pub(crate) oathtool: PathBuf,
    /// `chromium`, a browser with authenticators that are only in it.
    pub(crate) chromium: PathBuf,
    /// What adds a passkey in it, for that Node.
    pub(crate) passkeys_js: PathBuf,
    /// An OpenID provider that is not ours, for that Node.
    pub(crate) provider_js: PathBuf,
    /// What signs in at one in a browser, for that Node.
    pub(crate) social_js: PathBuf,
    /// What checks the signatures of webhooks, for that Node.
    pub(crate) webhooks_js: PathBuf,
    /// The `openssl` command.
    pub(crate) openssl: PathBuf,
    /// The Python that has what `requirements.txt` names.
    pub(crate) python: PathBuf,
    /// The test SMTP server, for that Python.
    pub(crate) smtp: PathBuf,
    /// `node`.
    pub(crate) node: PathBuf,
    /// What verifies our tokens with jose, for that Node.
    pub(crate) foreign_js: PathBuf,
    /// What verifies our tokens with PyJWT, for that Python.
    pub(crate) foreign_py: PathBuf,
    /// The Express example, for that Node.
    pub(crate) express: PathBuf,
    /// Who runs PostgreSQL when we are root, whom `initdb` refuses.
    pub(crate) postgres_user: Option<SystemUser>,
}

impl Parts {
    /// A command that runs as the user who owns PostgreSQL's data.
    pub(crate) fn as_postgres(&self, program: &Path) -> Command {
        match &self.postgres_user {
            None => Command::new(program),
            Some(user) => user.command(program),
        }
    }
}

/// Something to find, the Debian package that has it, and what to call it.
struct Need {
    what: &'static str,
    package: &'static str,
    find: fn() -> Option<PathBuf>,
}

const POSTGRES: Need =
    Need { what: "PostgreSQL's server and psql", package: "postgresql", find: postgres_folder };
const REDIS: Need = Need { what: "redis-server", package: "redis-server", find: || find("redis-server") };
const OATHTOOL: Need = Need { what: "oathtool", package: "oathtool", find: || find("oathtool") };
const CHROMIUM: Need = Need { what: "chromium", package: "chromium", find: || find("chromium") };
const OPENSSL: Need = Need { what: "openssl", package: "openssl", find: || find("openssl") };
const PYTHON: Need = Need { what: "python3", package: "python3-venv", find: || find("python3") };
const NODE: Need = Need { what: "node", package: "nodejs", find: || find("node") };
const NPM: Need = Need { what: "npm", package: "npm", find: || find("npm") };
/// The programs that verify our tokens with software that is not ours.
const FOREIGN: &str = "crates/pearlgate/tests/foreign";
/// Those of them that are for Node, with what they share.
const FOREIGN_JS: [&str; 6] =
    ["verify.mjs", "browser.mjs", "passkeys.mjs", "provider.mjs", "social.mjs", "webhooks.mjs"];

/// Finds everything; installs what is missing when we may, else says what to install.
pub(crate) fn make_sure(repo: &Repo) -> Outcome<Parts> {
    let needs = [&POSTGRES, &REDIS, &OATHTOOL, &CHROMIUM, &OPENSSL, &PYTHON, &NODE, &NPM];
    let missing: Vec<&Need> = needs.into_iter().filter(|need| (need.find)().is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|need| need.what).collect();
        let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
        apt::install(repo, &names.join(", "), &packages)?;
    }
    let (node, npm) = (NODE.found()?, NPM.found()?);
    node::check(&node)?;
    let foreign = node::make_sure(repo, &npm, ("foreign", FOREIGN), &FOREIGN_JS)?;
    let express = node::make_sure(repo, &npm, ("express", "examples/express"), &["server.js"])?;
    Ok(Parts {
        postgres: POSTGRES.found()?,
        redis: REDIS.found()?,
        oathtool: OATHTOOL.found()?,
        chromium: CHROMIUM.found()?,
        passkeys_js: foreign.join("passkeys.mjs"),
        provider_js: foreign.join("provider.mjs"),
        social_js: foreign.join("social.mjs"),
        webhooks_js: foreign.join("webhooks.mjs"),
        openssl: OPENSSL.found()?,
        python: venv::make_sure(repo, &PYTHON.found()?)?,
        smtp: repo.part("smtp_server.py"),
        foreign_js: foreign.join("verify.mjs"),
        foreign_py: repo.root().join(FOREIGN).join("verify.py"),
        express: express.join("server.js"),
        node,
        postgres_user: user::for_postgres()?,
    })
}

impl Need {
    fn found(&self) -> Outcome<PathBuf> {
        (self.find)().ok_or_else(|| {
            Failure::new(
                format!("{} is not there", self.what),
                "it is neither in PATH nor where its package puts it",
                format!("install it (Debian's package is {}) and run this again", self.package),
            )
        })
    }
}

/// The folder that `initdb` in PATH really lives in, else Debian's newest version, which is not in PATH.
fn postgres_folder() -> Option<PathBuf> {
    let complete = |dir: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|name| dir.join(name).is_file());
    let in_path = find("initdb")
        .and_then(|initdb| initdb.canonicalize().ok())
        .and_then(|initdb| initdb.parent().map(Path::to_owned))
        .filter(complete);
    in_path.or_else(|| debian_folders().into_iter().rev().map(|(_, dir)| dir).find(complete))
}

/// `/usr/lib/postgresql/VERSION/bin`, oldest first.
fn debian_folders() -> Vec<(u32, PathBuf)> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<(u32, PathBuf)> = folders
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    folders.sort();
    folders
}
