//! Lock files of npm and pip may not say where to fetch from: that is the business of the machine they are used on,
//! and an address in them would send everyone to the registry, or the mirror, of whoever wrote them.

use std::path::Path;

use crate::failure::{OrFail, Outcome};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 4] = [".git", "target", "node_modules", "pearlgate-data"];

/// One sentence for every line that names an address.
pub(crate) fn complaints(root: &Path) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    walk(root, root, &mut found)?;
    Ok(found)
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) -> Outcome {
    let remedy = "make it readable, or remove it";
    let entries = std::fs::read_dir(dir).or_fail(format!("cannot list {}", dir.display()), remedy)?;
    for entry in entries {
        let entry = entry.or_fail(format!("cannot list {}", dir.display()), remedy)?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // Symbolic links are not followed: `file_type` does not.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && !SKIPPED.contains(&name.as_str()) {
            walk(root, &path, found)?;
        } else if !is_dir && is_lock(&name) {
            let text =
                std::fs::read_to_string(&path).or_fail(format!("cannot read {}", path.display()), remedy)?;
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            found.extend(lines(&text).map(|line| format!("{shown}:{line} names a registry's address")));
        }
    }
    Ok(())
}

/// The lock files and settings of npm, its kin, and pip.
fn is_lock(name: &str) -> bool {
    let exact = [
        "package-lock.json",
        "npm-shrinkwrap.json",
        "yarn.lock",
        "pnpm-lock.yaml",
        "bun.lock",
        ".npmrc",
        ".yarnrc.yml",
        "pip.conf",
        "Pipfile.lock",
        "poetry.lock",
        "uv.lock",
    ];
    let requirements = name.contains("requirements") || name.contains("constraints");
    exact.contains(&name) || (requirements && (name.ends_with(".txt") || name.ends_with(".in")))
}

/// The numbers of the lines with an address.
fn lines(text: &str) -> impl Iterator<Item = usize> {
    let numbered = text.lines().zip(1..);
    numbered.filter(|(line, _)| names_address(line)).map(|(_, number)| number)
}

fn names_address(line: &str) -> bool {
    let bare: String = line.chars().filter(|c| !matches!(c, ' ' | '\t' | '"' | '\'')).collect();
    let bare = bare.to_ascii_lowercase();
    if bare.starts_with('#') {
        return false;
    }
    // Where npm, pnpm and yarn keep the tarball's address, and where pip and uv keep the index's.
    let keys = ["resolved", "tarball:", "registry", "index", "find-links", "@http", "url=http"];
    let option = bare.contains("index-url") || bare.starts_with("-ihttp");
    option || (bare.contains("http") && keys.iter().any(|key| bare.contains(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        for line in [
            r#"      "resolved": "https://mirror.example/left-pad-1.3.0.tgz","#,
            r#"  resolved "http://mirror.example/left-pad-1.3.0.tgz#5b8a3a7765dfe001261dde915589e782f8c94d1e""#,
            "    resolution: {integrity: sha512-x, tarball: https://mirror.example/x.tgz}",
            "--index-url https://mirror.example/simple",
            "-i https://mirror.example/simple",
            "--extra-index-url=https://mirror.example/simple",
            "--find-links https://mirror.example/",
            "registry=https://mirror.example/",
            r#"source = { registry = "https://mirror.example/simple" }"#,
            "attrs @ https://mirror.example/attrs.whl",
        ] {
            assert_eq!(lines(line).collect::<Vec<_>>(), [1], "{line}");
        }
    }

    #[test]
    fn other_lines_are_left_in_peace() {
        for line in [
            r#"      "version": "1.3.0","#,
            r#"      "resolved": "packages/ours","#,
            r#"      "url": "https://github.com/sponsors/somebody""#,
            "attrs==24.3.0 --hash=sha256:ac96cd",
            "# pip asks the index at https://… that the machine is set up for",
        ] {
            assert_eq!(lines(line).count(), 0, "{line}");
        }
    }

    #[test]
    fn lock_files_are_recognized() {
        for name in ["package-lock.json", "requirements.txt", "requirements-dev.txt", ".npmrc"] {
            assert!(is_lock(name), "{name}");
        }
        assert!(!is_lock("package.json") && !is_lock("Cargo.lock"));
    }
}
