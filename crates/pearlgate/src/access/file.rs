//! A file of roles, as an application ships it, and what applying it would change: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::model::{HIGHEST, LONGEST_NAME, OWNER, Pattern, RoleName, RoleSpec, effects};

/// A file of roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolesFile {
    /// The roles that new accounts get, if it says so.
    pub default: Option<BTreeSet<String>>,
    /// The roles that it declares.
    pub roles: BTreeMap<String, RoleSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    default: Option<BTreeSet<String>>,
    roles: BTreeMap<String, Declared>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Declared {
    description: String,
    level: i64,
    inherits: BTreeSet<String>,
    permissions: BTreeSet<String>,
}

impl RolesFile {
    /// Reads a file of roles (TOML): `default` at the top, and a table `[roles.NAME]` for each role. Whether roles fit
    /// together is for `plan` to say, which knows the ones that there are.
    ///
    /// # Errors
    /// In words: what is wrong, where, and what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| not_roles(text, &error))?;
        let mut roles = BTreeMap::new();
        for (name, declared) in written.roles {
            let Declared { description, level, inherits, permissions } = declared;
            if name == OWNER {
                return Err(format!(
                    "roles.{OWNER}: {OWNER} is always there and cannot be changed: take this out"
                ));
            }
            if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                return Err(format!(
                    "roles.{name:?}: call a role something on one line of at most {LONGEST_NAME} bytes"
                ));
            }
            if !(0..=HIGHEST).contains(&level) {
                return Err(format!("roles.{name}.level: {level}: give one from 0 to {HIGHEST}"));
            }
            let taken = |text: &String| {
                Pattern::parse("permissions", text)
                    .map(|pattern| pattern.as_str().to_owned())
                    .map_err(|error| format!("roles.{name}.permissions: {text:?}: {}", error.message))
            };
            let permissions = permissions.iter().map(taken).collect::<Result<BTreeSet<String>, String>>()?;
            roles.insert(name.clone(), RoleSpec { name, description, level, inherits, permissions });
        }
        Ok(Self { default: written.default, roles })
    }
}

/// Why a text is no file of roles.
fn not_roles(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line =
        before.map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1));
    format!(
        "{line}{}. Write `default = [\"…\"]` at the top, and for each role [roles.NAME] with description, level, \
         inherits and permissions",
        error.message()
    )
}

/// What applying a file changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Roles that are new.
    pub add: Vec<RoleSpec>,
    /// Roles that become these.
    pub change: Vec<RoleSpec>,
    /// Roles that go.
    pub remove: Vec<String>,
    /// What new accounts get from now on, if that changes.
    pub default: Option<BTreeSet<String>>,
    /// All of it for people, a line each.
    pub lines: Vec<String>,
}

impl Plan {
    /// Whether everything stays as it is.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.change.is_empty() && self.remove.is_empty() && self.default.is_none()
    }
}

/// What has to change so that the file holds. Roles that it does not name stay, unless `prune`; the owner stays
/// always.
///
/// # Errors
/// In words, why it cannot hold.
pub(super) fn plan(
    current: &BTreeMap<String, RoleSpec>,
    default: &BTreeSet<String>,
    file: &RolesFile,
    prune: bool,
) -> Result<Plan, String> {
    let mut after = current.clone();
    after.retain(|name, _| !prune || name == OWNER || file.roles.contains_key(name));
    after.extend(file.roles.iter().map(|(name, role)| (name.clone(), role.clone())));
    let mut made = Plan::default();
    for (name, role) in &file.roles {
        match current.get(name) {
            Some(before) if before == role => {}
            Some(before) => {
                made.lines.push(difference(before, role));
                made.change.push(role.clone());
            }
            None => {
                RoleName::parse("roles", name)
                    .map_err(|error| format!("role {name:?}: {}", error.message))?;
                made.add.push(role.clone());
            }
        }
    }
    effects(&after)?;
    for name in file.default.as_ref().unwrap_or(default) {
        match after.get(name) {
            Some(role) if role.level == 0 => {}
            Some(role) => {
                return Err(format!(
                    "default: role {name} has level {}, and new accounts get only roles of level 0: take it out",
                    role.level
                ));
            }
            None => {
                return Err(format!(
                    "default: there is no role {name:?}: declare it, or name the roles that new accounts get"
                ));
            }
        }
    }
    made.remove = current.keys().filter(|name| !after.contains_key(*name)).cloned().collect();
    made.default = file.default.clone().filter(|wanted| wanted != default);
    let added = made.add.iter().map(|role| format!("+ role {} (level {})", role.name, role.level));
    let mut lines: Vec<String> = added.collect();
    lines.append(&mut made.lines);
    lines.extend(made.remove.iter().map(|name| format!("- role {name}")));
    if let Some(wanted) = &made.default {
        let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
        lines.push(format!(
            "default: {}",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        ));
    }
    made.lines = lines;
    Ok(made)
}

/// One line on how a role changes.
fn difference(before: &RoleSpec, after: &RoleSpec) -> String {
    let less = |sign: &str, of: &BTreeSet<String>, without: &BTreeSet<String>| -> Vec<String> {
        of.difference(without).map(|one| format!("{sign} {one}")).collect()
    };
    let mut parts = less("+", &after.permissions, &before.permissions);
    parts.extend(less("-", &before.permissions, &after.permissions));
    parts.extend(less("+ inherits", &after.inherits, &before.inherits));
    parts.extend(less("- inherits", &before.inherits, &after.inherits));
    if before.level != after.level {
        parts.push(format!("level {} → {}", before.level, after.level));
    }
    if before.description != after.description {
        parts.push("another description".to_owned());
    }
    format!("~ role {}: {}", after.name, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::tests::{all, graphs, owner, role, set};
    use super::super::model::{holds, own_within};
    use super::*;

    const ACADEMY: &str = include_str!("../../../../examples/academy/roles.toml");

    #[test]
    fn a_file_says_what_it_means_or_is_refused_with_the_place() {
        let file = RolesFile::parse(
            "default = ['student']\n[roles.student]\n[roles.\"Course Lead\"]\nlevel = 5\ndescription = 'Leads.'\n\
             inherits = ['student']\npermissions = ['course:*', 'users:read']\n",
        )
        .unwrap();
        assert_eq!(file.default, Some(set(&["student"])));
        assert_eq!(file.roles["student"], role("student", 0, &[], &[]));
        let lead = role("Course Lead", 5, &["student"], &["course:*", "users:read"]);
        assert_eq!(file.roles["Course Lead"], RoleSpec { description: "Leads.".to_owned(), ..lead });
        assert_eq!(RolesFile::parse(""), Ok(RolesFile::default()));
        for (text, words) in [
            ("[roles.a]\nlevle = 1", vec!["line 2: ", "levle", "inherits"]),
            ("[roles.a]\ndefault = ['a']", vec!["line 2: ", "at the top"]),
            ("[role.a]", vec!["line 1: ", "[roles.NAME]"]),
            ("\n\n[roles.a", vec!["line 3: "]),
            ("[roles.a]\n[roles.a]", vec!["line 2: "]),
            ("[roles.a]\nlevel = '1'", vec!["line 2: "]),
            ("[roles.owner]", vec!["roles.owner: ", "take this out"]),
            ("[roles.a]\nlevel = 100", vec!["roles.a.level: 100", "0 to 99"]),
            (
                "[roles.a]\npermissions = ['course']",
                vec!["roles.a.permissions: \"course\"", "course:publish"],
            ),
            (
                "[roles.a]\npermissions = ['users:raed']",
                vec!["roles.a.permissions: \"users:raed\"", "users:read"],
            ),
            ("[roles.\"\"]", vec!["one line"]),
            ("[roles.\"a\\nb\"]", vec!["one line", "a\\nb"]),
        ] {
            let refused = RolesFile::parse(text).unwrap_err();
            assert!(words.iter().all(|word| refused.contains(word)), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_plan_says_in_lines_what_changes() {
        let current = all(vec![
            role("student", 0, &[], &["course:edit", "lesson:view"]),
            role("old", 0, &[], &[]),
            role("Imported Role", 0, &["old"], &[]),
            owner(),
        ]);
        let file = RolesFile::parse(
            "default = ['guest']\n[roles.guest]\n[roles.instructor]\nlevel = 10\ninherits = ['student']\n\
             [roles.student]\nlevel = 5\ndescription = 'Learns.'\ninherits = ['guest']\n\
             permissions = ['course:view', 'lesson:view']\n",
        )
        .unwrap();
        let kept = plan(&current, &set(&[]), &file, false).unwrap();
        let lines = [
            "+ role guest (level 0)",
            "+ role instructor (level 10)",
            "~ role student: + course:view, - course:edit, + inherits guest, level 0 → 5, another description",
            "default: guest",
        ];
        assert_eq!(kept.lines, lines);
        assert_eq!((kept.add.len(), kept.change.len(), kept.remove.len()), (2, 1, 0));
        let pruned = plan(&current, &set(&["guest"]), &file, true).unwrap();
        assert_eq!(pruned.remove, ["Imported Role", "old"]);
        assert_eq!(pruned.lines[3..], ["- role Imported Role", "- role old"]);
        assert_eq!(pruned.default, None);
        let nobody = RolesFile { default: Some(set(&[])), ..RolesFile::default() };
        assert_eq!(plan(&current, &set(&["student"]), &nobody, false).unwrap().lines, ["default: none"]);
    }

    #[test]
    fn a_plan_that_cannot_hold_is_refused() {
        let current = all(vec![role("student", 0, &[], &[]), role("Imported Role", 3, &[], &[]), owner()]);
        for (text, prune, words) in [
            ("default = ['ghost']", false, "no role \"ghost\""),
            ("default = ['Imported Role']", false, "level 3"),
            ("default = ['owner']", false, "level 100"),
            ("[roles.student]\nlevel = 1", false, "default: role student has level 1"),
            ("[roles.other]", true, "no role \"student\""),
            (
                "[roles.student]\n[roles.a]\nlevel = 5\ninherits = ['Imported Role']",
                true,
                "\"Imported Role\"",
            ),
            ("[roles.a]\nlevel = 1\ninherits = ['Imported Role']", false, "lower than that of Imported Role"),
            ("[roles.\"Another Role\"]", false, "role \"Another Role\": begin with"),
            ("[roles.student]\npermissions = ['users:read']", false, "level 0"),
        ] {
            let refused =
                plan(&current, &set(&["student"]), &RolesFile::parse(text).unwrap(), prune).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
        let imported = RolesFile::parse("[roles.\"Imported Role\"]\nlevel = 4").unwrap();
        let made = plan(&current, &set(&["student"]), &imported, false).unwrap();
        assert_eq!(made.lines, ["~ role Imported Role: level 3 → 4"], "a name that is there may stay");
    }

    #[test]
    fn at_the_academy_everybody_may_what_their_work_needs() {
        let file = RolesFile::parse(ACADEMY).unwrap();
        let made = plan(&all(vec![owner()]), &set(&[]), &file, false).unwrap();
        let lines = [
            "+ role admin (level 50)",
            "+ role instructor (level 10)",
            "+ role moderator (level 20)",
            "+ role student (level 0)",
            "default: student",
        ];
        assert_eq!(made.lines, lines);
        let effects = effects(&file.roles).unwrap();
        let held = |role: &str| -> BTreeSet<String> {
            effects
                .iter()
                .filter(|effect| effect.role == role)
                .map(|effect| effect.permission.clone())
                .collect()
        };
        for (role, may, may_not) in [
            (
                "student",
                vec!["course:view", "lesson:view", "exercise:submit", "certificate:view", "report:write"],
                vec!["course:edit", "grade:write", "certificate:issue", "forum:moderate", "users:read"],
            ),
            (
                "instructor",
                vec!["course:view", "exercise:submit", "course:edit", "course:publish", "grade:write"],
                vec!["course:delete", "forum:moderate", "report:handle", "users:read", "audit:read"],
            ),
            (
                "moderator",
                vec!["course:view", "forum:moderate", "report:handle", "users:read"],
                vec![
                    "course:publish",
                    "grade:write",
                    "users:write",
                    "users:impersonate",
                    "invitations:write",
                ],
            ),
            (
                "admin",
                vec![
                    "course:delete",
                    "grade:write",
                    "forum:moderate",
                    "users:write",
                    "invitations:write",
                    "roles:write",
                    "api_keys:write",
                    "audit:read",
                    "mail:read",
                ],
                vec![
                    "users:impersonate",
                    "mail:write",
                    "settings:read",
                    "signing_keys:read",
                    "webhooks:write",
                    "jobs:write",
                    "access:check",
                ],
            ),
        ] {
            let held = held(role);
            assert!(may.iter().all(|one| holds(&held, one)), "{role}: {held:?}");
            assert!(!may_not.iter().any(|one| holds(&held, one)), "{role}: {held:?}");
        }
        assert!(
            own_within(&held("moderator"), &held("admin")) && own_within(&held("instructor"), &held("admin"))
        );
        assert!(!own_within(&held("admin"), &held("moderator")));
        assert!(!own_within(&set(&["*"]), &held("admin")));
    }

    proptest! {
        #[test]
        fn what_was_applied_needs_no_change(before in graphs(), wanted in graphs(), prune in any::<bool>()) {
            let mut current = before;
            current.insert(OWNER.to_owned(), owner());
            let file = RolesFile { default: None, roles: wanted };
            let made = plan(&current, &set(&[]), &file, prune).unwrap();
            prop_assert_eq!(made.lines.len(), made.add.len() + made.change.len() + made.remove.len());
            let mut after = current;
            after.retain(|name, _| !made.remove.contains(name));
            after.extend(made.add.iter().chain(&made.change).map(|role| (role.name.clone(), role.clone())));
            prop_assert_eq!(&after[OWNER], &owner());
            prop_assert!(file.roles.iter().all(|(name, role)| after.get(name) == Some(role)));
            prop_assert!(!prune || after.len() == file.roles.len() + 1);
            prop_assert!(plan(&after, &set(&[]), &file, prune).unwrap().is_empty());
        }
    }
}
