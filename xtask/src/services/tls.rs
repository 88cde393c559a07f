//! A certificate authority that lives as long as the servers, and one certificate for localhost and 127.0.0.1.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{OrFail, Outcome};
use crate::process::capture;

const REMEDY: &str = "see whether `openssl version` is 1.1.1 or later";
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// The files, for us alone to read.
pub(crate) struct Tls {
    /// The authority's certificate.
    pub(crate) ca: PathBuf,
    /// The servers' certificate.
    pub(crate) cert: PathBuf,
    /// The servers' private key (PKCS #8).
    pub(crate) key: PathBuf,
}

/// Makes them in a folder of their own.
pub(crate) fn make(dir: &Path, openssl: &Path) -> Outcome<Tls> {
    let dir = dir.join("tls");
    DirBuilder::new().mode(0o700).create(&dir).or_fail(format!("cannot make {}", dir.display()), REMEDY)?;
    let settings = dir.join("openssl.cnf");
    std::fs::write(&settings, include_str!("../../parts/openssl.cnf"))
        .or_fail(format!("cannot write {}", settings.display()), REMEDY)?;
    let run = |args: &[&[&str]]| {
        let mut command = Command::new(openssl);
        command.current_dir(&dir).args(args.concat());
        capture(&mut command, REMEDY).map(drop)
    };
    let config: &[&str] = &["-config", "openssl.cnf"];
    run(&[
        &["req", "-x509", "-new", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"],
        &KEY,
        config,
        &["-extensions", "authority", "-subj", "/CN=Pearlgate test authority"],
    ])?;
    run(&[
        &["req", "-new", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"],
        &KEY,
        config,
    ])?;
    run(&[
        &["x509", "-req", "-in", "server.csr", "-out", "server.pem", "-days", "2", "-set_serial", "2"],
        &["-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "openssl.cnf", "-extensions", "server"],
    ])?;
    Ok(Tls { ca: dir.join("ca.pem"), cert: dir.join("server.pem"), key: dir.join("server.key") })
}
