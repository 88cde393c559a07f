//! What we build on: banned crates, licences and sources, in seconds and without the network.
//!
//! The rules are those of `deny.toml`, so that `cargo deny check` and this check cannot disagree about them.

mod addresses;
mod packages;
mod rules;
mod spdx;

use std::collections::BTreeSet;

use crate::failure::{Failure, Outcome};
use crate::repo::Repo;
use packages::{Package, Source};
use rules::Rules;

/// Names everything that may not come in, at once.
pub(crate) fn check(repo: &Repo) -> Outcome {
    let rules = Rules::parse(&repo.read("deny.toml")?)?;
    let built = packages::built(repo)?;
    let sources = packages::sources(&repo.read("Cargo.lock")?)?;
    let mut complaints = bans(&rules, &built);
    complaints.extend(features(&rules, &built));
    complaints.extend(licences(&rules, &built));
    complaints.extend(foreign(&sources));
    complaints.extend(addresses::complaints(repo.root())?);
    if complaints.is_empty() {
        // A crate stands in the set once per set of features.
        let crates: BTreeSet<_> = built.iter().map(|package| (&package.name, &package.version)).collect();
        let (crates, locked) = (crates.len(), sources.len());
        println!("{crates} crates built, {locked} locked: bans, licences and sources are in order");
        return Ok(());
    }
    Err(Failure::new(
        format!("{} things may not come in", complaints.len()),
        complaints.join("\n           "),
        "choose other crates or features, or change the rule in deny.toml and say why there",
    ))
}

fn bans(rules: &Rules, built: &BTreeSet<Package>) -> Vec<String> {
    let mut complaints = Vec::new();
    for ban in &rules.bans {
        let versions: BTreeSet<&str> =
            built.iter().filter(|package| package.name == ban.name).map(|p| p.version.as_str()).collect();
        let tolerated = usize::from(ban.only_several);
        if versions.len() > tolerated {
            let versions = versions.into_iter().collect::<Vec<_>>().join(" and ");
            complaints.push(format!(
                "{} {versions}: {} (`cargo tree --invert {}` shows who brings it)",
                ban.name, ban.reason, ban.name
            ));
        }
    }
    complaints
}

fn features(rules: &Rules, built: &BTreeSet<Package>) -> Vec<String> {
    let denied = |package: &Package, feature: &String| {
        rules.features.iter().any(|(name, denied)| *name == package.name && denied.contains(feature))
    };
    let complaint = |package: &Package, feature: &String| {
        format!("{} {} is built with its feature {feature}", package.name, package.version)
    };
    built
        .iter()
        .flat_map(|package| package.features.iter().map(move |feature| (package, feature)))
        .filter(|(package, feature)| denied(package, feature))
        .map(|(package, feature)| complaint(package, feature))
        .collect()
}

fn licences(rules: &Rules, built: &BTreeSet<Package>) -> Vec<String> {
    let complaint = |package: &Package| {
        let title = format!("{} {}", package.name, package.version);
        match spdx::allowed(&package.licence, &rules.licences) {
            Ok(true) => None,
            Ok(false) => Some(format!("{title}: its licence \"{}\" is not on the list", package.licence)),
            Err(reason) => {
                Some(format!("{title}: cannot read its licence \"{}\": {reason}", package.licence))
            }
        }
    };
    built.iter().filter_map(complaint).collect()
}

fn foreign(sources: &[Source]) -> Vec<String> {
    let foreign = sources.iter().filter(|source| !source.is_crates_io());
    foreign
        .map(|source| format!("{} comes from {}, not from crates.io", source.name, source.address))
        .collect()
}

#[cfg(test)]
mod tests;
