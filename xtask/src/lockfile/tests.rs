//! The rules as `deny.toml` has them, held against packages made up for it.

use super::*;

fn rules() -> Rules {
    Rules::parse(include_str!("../../../deny.toml")).unwrap()
}

fn built(lines: &[&str]) -> BTreeSet<Package> {
    lines.iter().map(|line| Package::parse(line).unwrap()).collect()
}

#[test]
fn a_line_of_cargo_tree_is_read_whatever_stands_behind_it() {
    let package =
        Package::parse("serde_derive v1.0.229 (proc-macro)|MIT OR Apache-2.0|default,std| (*)").unwrap();
    assert_eq!((package.name.as_str(), package.version.as_str()), ("serde_derive", "1.0.229"));
    assert_eq!((package.licence.as_str(), package.features.len()), ("MIT OR Apache-2.0", 2));
    assert!(Package::parse("xtask v0.1.0 (/somewhere/xtask)|Apache-2.0||").unwrap().features.is_empty());
    assert!(Package::parse("warning: something").is_none());
}

#[test]
fn what_the_issue_bans_is_banned() {
    for name in ["openssl", "openssl-sys", "native-tls", "ring"] {
        let line = format!("{name} v1.0.0|MIT||");
        assert_eq!(bans(&rules(), &built(&[&line])).len(), 1, "{name}");
    }
    assert!(bans(&rules(), &built(&["openssl-probe v0.2.2|MIT||"])).is_empty());
}

#[test]
fn one_sqlite_is_welcome_and_two_are_not() {
    let one = ["libsqlite3-sys v0.39.1|MIT|bundled|", "libsqlite3-sys v0.39.1|MIT||"];
    assert!(bans(&rules(), &built(&one)).is_empty());
    let two = ["libsqlite3-sys v0.39.1|MIT||", "libsqlite3-sys v0.30.0|MIT||"];
    assert_eq!(bans(&rules(), &built(&two)).len(), 1);
}

#[test]
fn jsonwebtoken_may_not_bring_its_own_rsa() {
    assert!(features(&rules(), &built(&["jsonwebtoken v11.1.0|MIT|aws_lc_rs,use_pem|"])).is_empty());
    assert_eq!(features(&rules(), &built(&["jsonwebtoken v11.1.0|MIT|rust_crypto|"])).len(), 1);
}

#[test]
fn licences_off_the_list_and_missing_ones_are_named() {
    let odd = built(&["a v1.0.0|MIT OR GPL-3.0-only||", "b v1.0.0|AGPL-3.0-only||", "c v1.0.0|||"]);
    let complaints = licences(&rules(), &odd);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
}

#[test]
fn only_crates_io_is_a_source() {
    let lock = r#"
        package = [
            { name = "ours" },
            { name = "good", source = "registry+https://github.com/rust-lang/crates.io-index" },
            { name = "git", source = "git+https://example.org/x?rev=1#1" },
            { name = "mirror", source = "registry+https://example.org/rust-lang/crates.io-index" },
        ]"#;
    let foreign = foreign(&packages::sources(lock).unwrap());
    assert_eq!(foreign.len(), 2, "{foreign:?}");
}

#[test]
fn a_rule_we_do_not_understand_is_refused() {
    let text = include_str!("../../../deny.toml");
    for (from, to) in [
        ("crate = \"ring\"", "crate = \"ring:<1\""),
        ("reason = \"cryptography", "wrappers = [\"x\"], reason = \"cryptography"),
        ("[licenses]", "[licenses]\nexceptions = []"),
        ("unknown-git = \"deny\"", "unknown-git = \"allow\""),
        ("unknown-git = \"deny\"", ""),
    ] {
        assert!(text.contains(from) && Rules::parse(&text.replace(from, to)).is_err(), "{to}");
    }
}
