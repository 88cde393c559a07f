//! Roles on paper: what they are called, what they may, and who is allowed what by them: pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use foundation::kernel::{Entity, FieldError};

/// Ids of roles.
#[derive(Debug)]
pub struct RoleRow;
impl Entity for RoleRow {
    const PREFIX: &'static str = "rol";
}

/// The role that may do everything. It cannot be changed, and somebody always has it.
pub const OWNER: &str = "owner";
/// The owner's level: above everybody's.
pub(super) const OWNER_LEVEL: i64 = 100;
/// Roles below the owner have a level from 0 to this. 0: an ordinary person. 1 and more: an operator.
pub(super) const HIGHEST: i64 = 99;

/// The server's own permissions, and what each opens. Everything else is an application's.
pub const OWN: &[(&str, &str)] = &[
    ("users:read", "look people up"),
    ("users:write", "change people, shut them out and let them in"),
    ("users:impersonate", "act as somebody else"),
    ("invitations:read", "see who is invited"),
    ("invitations:write", "invite people, and take invitations back"),
    ("roles:read", "see roles, and who has them"),
    ("roles:write", "change roles, grant and revoke them"),
    ("api_keys:read", "see API keys, without their secrets"),
    ("api_keys:write", "make API keys, and take them back"),
    ("audit:read", "read the audit trail"),
    ("jobs:read", "see jobs that wait or failed"),
    ("jobs:write", "have jobs tried again, or dropped"),
    ("mail:read", "see what became of mails"),
    ("mail:write", "lift addresses that are left alone"),
    ("webhooks:read", "see endpoints, and what came of telling them"),
    ("webhooks:write", "add, change and remove endpoints"),
    ("providers:read", "see sign-in providers"),
    ("providers:write", "add, change and remove sign-in providers"),
    ("signing_keys:read", "see signing keys"),
    ("signing_keys:write", "change signing keys"),
    ("settings:read", "see settings, without secrets"),
    ("revocations:read", "hear of what is revoked"),
    ("access:check", "ask what somebody else may"),
];

/// Longer ones are refused.
const LONGEST_WORD: usize = 64;
const LONGEST_RESOURCE: usize = 200;
/// Names that came with an import have at most so many bytes.
pub(super) const LONGEST_NAME: usize = 100;

/// What stands before the colon; nothing when there is none.
fn area(pattern: &str) -> &str {
    pattern.split_once(':').map_or("", |(area, _)| area)
}

/// Whether a pattern reaches into the server's own areas.
pub(super) fn is_own(pattern: &str) -> bool {
    pattern == "*" || OWN.iter().any(|(own, _)| area(own) == area(pattern))
}

/// Whether a pattern grants what is asked for; that may be a pattern too.
fn covers(pattern: &str, asked: &str) -> bool {
    let wide = |area: &str| area.ends_with(':') && asked.starts_with(area);
    pattern == "*" || pattern == asked || pattern.strip_suffix('*').is_some_and(wide)
}

/// Whether a grant with this scope counts for a resource, or for none.
fn counts_on(scope: &str, resource: Option<&Resource>) -> bool {
    let within = |text: &str| {
        text == scope
            || scope
                .strip_suffix("/*")
                .and_then(|start| text.strip_prefix(start))
                .is_some_and(|rest| rest.starts_with('/'))
    };
    scope.is_empty() || resource.is_some_and(|resource| within(resource.as_str()))
}

/// `[a-z0-9][a-z0-9_.-]{0,63}`
fn is_word(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= LONGEST_WORD
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b"_.-".contains(&b))
}

fn is_resource(text: &str) -> bool {
    // `course/../42` would begin with `course/` and be read elsewhere as something else.
    let segment = |text: &str| {
        !matches!(text, "" | "." | "..")
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.~-".contains(&b))
    };
    text.len() <= LONGEST_RESOURCE && text.split('/').all(segment)
}

/// What a new role may be called: `[a-z0-9][a-z0-9_.-]{0,63}`. Names that came with an import may be anything on one
/// line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleName(pub String);

impl RoleName {
    /// Takes a name as new ones are.
    ///
    /// # Errors
    /// `invalid`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        // A name is never taken for somebody's id.
        let id = ["usr_", "key_", "rol_", "ses_"].into_iter().any(|begin| text.starts_with(begin));
        if is_word(text) && !id {
            return Ok(Self(text.to_owned()));
        }
        let message = "begin with a-z or 0-9, go on with these and _ . -, and use at most 64 of them, such as instructor; not like an id";
        Err(FieldError::new(field, "invalid", message))
    }
}

/// What is asked for: `area:action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission(String);

impl Permission {
    /// Takes one permission.
    ///
    /// # Errors
    /// `invalid`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        if text.split_once(':').is_some_and(|(area, action)| is_word(area) && is_word(action)) {
            return Ok(Self(text.to_owned()));
        }
        Err(FieldError::new(field, "invalid", "give one permission such as course:publish"))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The patterns that grant it: itself, everything in its area, everything.
    pub fn patterns(&self) -> [String; 3] {
        [self.0.clone(), format!("{}:*", area(&self.0)), "*".to_owned()]
    }
}

/// What a role holds: `area:action`, `area:*` or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    /// Takes one pattern. In the server's own areas a permission has to be one that exists, so that a typo is noticed.
    ///
    /// # Errors
    /// `invalid`.
    pub(super) fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let (area, action) = text.split_once(':').unwrap_or_default();
        let wide = text == "*" || (is_word(area) && action == "*");
        let exact = is_word(area) && is_word(action);
        if !wide && !exact {
            let message = "give a permission such as course:publish, or course:* for all of course, or * for everything";
            return Err(FieldError::new(field, "invalid", message));
        }
        if !wide && is_own(text) && !OWN.iter().any(|(own, _)| *own == text) {
            let start = format!("{area}:");
            let known: Vec<&str> =
                OWN.iter().map(|(own, _)| *own).filter(|own| own.starts_with(&start)).collect();
            let message = format!("this server has {}, and {area}:* for all of {area}", known.join(", "));
            return Err(FieldError::new(field, "invalid", message));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A thing that a permission is about, such as `course/42`: parts of `[A-Za-z0-9_.~-]+` (but not `.` or `..`) with
/// slashes between them, at most 200 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource(String);

impl Resource {
    /// Takes one resource.
    ///
    /// # Errors
    /// `invalid`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        if is_resource(text) {
            return Ok(Self(text.to_owned()));
        }
        let message = "give one thing such as course/42: letters, digits and _ . ~ - between slashes, at most 200 bytes";
        Err(FieldError::new(field, "invalid", message))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a role counts: nothing for everywhere, `course/42` for exactly that, `course/*` for everything that begins
/// with `course/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// Takes one scope.
    ///
    /// # Errors
    /// `invalid`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let start = text.strip_suffix("/*").unwrap_or(text);
        if text.is_empty() || (text.len() <= LONGEST_RESOURCE && is_resource(start)) {
            return Ok(Self(text.to_owned()));
        }
        let message =
            "give one thing such as course/42, or course/* for all that begin so, or nothing for everywhere";
        Err(FieldError::new(field, "invalid", message))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the role counts for this resource. Where no resource is named, only what counts everywhere does.
    pub fn covers(&self, resource: Option<&Resource>) -> bool {
        counts_on(&self.0, resource)
    }
}

/// A role as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSpec {
    /// What it is called.
    pub name: String,
    /// What it is for, for people.
    pub description: String,
    /// How high it stands.
    pub level: i64,
    /// The roles whose permissions it has too.
    pub inherits: BTreeSet<String>,
    /// Its own permissions, as patterns.
    pub permissions: BTreeSet<String>,
}

/// One thing that a role may in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Effect {
    /// The role.
    pub(super) role: String,
    /// What it may, as a pattern.
    pub(super) permission: String,
    /// The role that declares it: itself, or the nearest one that it inherits from.
    pub(super) via: String,
}

/// Everything that every role may, with what it inherits, each thing once. Of roles that are equally near, `via` is
/// the first by name.
///
/// # Errors
/// In words, what does not hold together.
pub(super) fn effects(roles: &BTreeMap<String, RoleSpec>) -> Result<Vec<Effect>, String> {
    for (name, role) in roles {
        stands_alone(name, role)?;
        for parent in &role.inherits {
            if parent == OWNER {
                return Err(format!(
                    "role {name} inherits from {OWNER}: take that out, and grant {OWNER} itself"
                ));
            }
            if !roles.contains_key(parent) {
                return Err(format!(
                    "role {name} inherits from {parent:?}, and there is no such role: declare it, or take it out"
                ));
            }
        }
    }
    if let Some(circle) = circle(roles) {
        return Err(format!("roles inherit in a circle, {}: take one step out", circle.join(" → ")));
    }
    let mut effects = Vec::new();
    for (name, role) in roles {
        for parent in role.inherits.iter().filter_map(|parent| roles.get(parent)) {
            if role.level < parent.level {
                return Err(format!(
                    "role {name} has level {}, which is lower than that of {}, which it inherits from: give it {} or more",
                    role.level, parent.name, parent.level
                ));
            }
        }
        for (permission, via) in reach(name, roles) {
            if role.level == 0 && is_own(permission) {
                let through = if via == name { String::new() } else { format!(", through {via}") };
                return Err(format!(
                    "role {name} has level 0 and may {permission}{through}, which is the server's own: give it level 1 or more"
                ));
            }
            effects.push(Effect {
                role: name.clone(),
                permission: permission.to_owned(),
                via: via.to_owned(),
            });
        }
    }
    Ok(effects)
}

/// What can be said of a role without looking at others.
fn stands_alone(name: &str, role: &RoleSpec) -> Result<(), String> {
    if name == OWNER {
        let everything = role.permissions.iter().map(String::as_str).eq(["*"]);
        if role.level == OWNER_LEVEL && everything && role.inherits.is_empty() {
            return Ok(());
        }
        return Err(format!(
            "role {OWNER} cannot be changed: it has level {OWNER_LEVEL}, holds \"*\" and inherits nothing"
        ));
    }
    if (0..=HIGHEST).contains(&role.level) {
        return Ok(());
    }
    Err(format!("role {name} has level {}: give it one from 0 to {HIGHEST}", role.level))
}

/// A way from a role back to itself, if there is one.
fn circle(roles: &BTreeMap<String, RoleSpec>) -> Option<Vec<&str>> {
    // Roles that inherit only from what was taken out are taken out, until none is left or each has a parent that is.
    let mut left: BTreeSet<&str> = roles.keys().map(String::as_str).collect();
    loop {
        let waits = |name: &str| {
            roles
                .get(name)
                .is_some_and(|role| role.inherits.iter().any(|parent| left.contains(parent.as_str())))
        };
        let (stay, free): (BTreeSet<&str>, BTreeSet<&str>) =
            left.iter().copied().partition(|name| waits(name));
        left = stay;
        if free.is_empty() {
            break;
        }
    }
    let mut way: Vec<&str> = vec![left.first().copied()?];
    loop {
        let role = roles.get(*way.last()?)?;
        let next = role.inherits.iter().map(String::as_str).find(|parent| left.contains(parent))?;
        if let Some(start) = way.iter().position(|seen| *seen == next) {
            way.push(next);
            return Some(way.split_off(start));
        }
        way.push(next);
    }
}

/// What a role may, each with the nearest role that declares it.
fn reach<'r>(name: &'r str, roles: &'r BTreeMap<String, RoleSpec>) -> BTreeMap<&'r str, &'r str> {
    let mut may: BTreeMap<&'r str, &'r str> = BTreeMap::new();
    let mut near: BTreeSet<&'r str> = BTreeSet::from([name]);
    let mut seen = near.clone();
    while !near.is_empty() {
        let mut further: BTreeSet<&'r str> = BTreeSet::new();
        for via in near {
            let Some(role) = roles.get(via) else { continue };
            for permission in &role.permissions {
                may.entry(permission.as_str()).or_insert(via);
            }
            for parent in &role.inherits {
                if seen.insert(parent.as_str()) {
                    further.insert(parent.as_str());
                }
            }
        }
        near = further;
    }
    may
}

/// Whether everything of the server's own that is given is held, so that nobody hands out more than they have. An
/// application's permissions do not count.
pub(super) fn own_within(given: &BTreeSet<String>, held: &BTreeSet<String>) -> bool {
    given.iter().filter(|pattern| is_own(pattern)).all(|pattern| holds(held, pattern))
}

/// Whether one of the held patterns grants the permission.
pub(super) fn holds(held: &BTreeSet<String>, permission: &str) -> bool {
    held.iter().any(|pattern| covers(pattern, permission))
}

/// A role that somebody has, with one of the things that it may.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    /// The role.
    pub(super) role: String,
    /// Where it counts; empty for everywhere.
    pub(super) resource: String,
    /// What it may, as a pattern.
    pub(super) permission: String,
    /// The role that declares it.
    pub(super) via: String,
}

/// Whether somebody may, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether they may.
    pub allowed: bool,
    /// By which role; or that none grants it.
    pub because: String,
}

/// Decides by what somebody was granted. The reason names the widest grant: one that counts everywhere, then one for
/// exactly this resource, then the narrowest of those for many.
pub(super) fn decide(grants: &[Granted], permission: &Permission, resource: Option<&Resource>) -> Decision {
    let on = |place: &str| if place.is_empty() { String::new() } else { format!(" on {place}") };
    let best = grants
        .iter()
        .filter(|grant| {
            covers(&grant.permission, permission.as_str()) && counts_on(&grant.resource, resource)
        })
        .min_by(|one, other| rank(one).cmp(&rank(other)));
    let Some(grant) = best else {
        let place = on(resource.map_or("", Resource::as_str));
        return Decision {
            allowed: false,
            because: format!("no role grants {}{place}", permission.as_str()),
        };
    };
    let place = on(&grant.resource);
    let through = if grant.via == grant.role { String::new() } else { format!(", through {}", grant.via) };
    Decision { allowed: true, because: format!("role {}{place}{through}", grant.role) }
}

/// The lowest is named as the reason.
fn rank(grant: &Granted) -> (u8, Reverse<usize>, bool, &str, &str) {
    let scope = match grant.resource.as_str() {
        "" => 0,
        scope if scope.ends_with("/*") => 2,
        _ => 1,
    };
    let inherited = grant.via != grant.role;
    (scope, Reverse(grant.resource.len()), inherited, grant.role.as_str(), grant.via.as_str())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In an order that is not the alphabet's: one may inherit from those before it.
    const NAMES: [&str; 8] = ["f", "b", "h", "a", "d", "g", "c", "e"];
    const PATTERNS: [&str; 8] = [
        "course:view",
        "course:publish",
        "course:*",
        "users:read",
        "users:write",
        "users:*",
        "audit:read",
        "*",
    ];
    const SCOPES: [&str; 8] =
        ["", "course/42", "course/*", "course/42/*", "course/4", "lesson/*", "*", "course/42/lesson/1"];

    pub(in super::super) fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|one| (*one).to_owned()).collect()
    }

    pub(in super::super) fn role(
        name: &str,
        level: i64,
        inherits: &[&str],
        permissions: &[&str],
    ) -> RoleSpec {
        let (inherits, permissions) = (set(inherits), set(permissions));
        RoleSpec { name: name.to_owned(), description: String::new(), level, inherits, permissions }
    }

    pub(in super::super) fn all(roles: Vec<RoleSpec>) -> BTreeMap<String, RoleSpec> {
        roles.into_iter().map(|role| (role.name.clone(), role)).collect()
    }

    pub(in super::super) fn owner() -> RoleSpec {
        role(OWNER, OWNER_LEVEL, &[], &["*"])
    }

    fn effect(role: &str, permission: &str, via: &str) -> Effect {
        Effect { role: role.to_owned(), permission: permission.to_owned(), via: via.to_owned() }
    }

    fn granted(role: &str, resource: &str, permission: &str, via: &str) -> Granted {
        let [role, resource, permission, via] = [role, resource, permission, via].map(str::to_owned);
        Granted { role, resource, permission, via }
    }

    fn permission(text: &str) -> Permission {
        Permission::parse("permission", text).unwrap()
    }

    fn resource(text: &str) -> Resource {
        Resource::parse("resource", text).unwrap()
    }

    /// Those whose bit is set.
    fn picked(bits: u8, of: &[&str]) -> BTreeSet<String> {
        of.iter()
            .enumerate()
            .filter(|(at, _)| (bits >> *at) & 1 == 1)
            .map(|(_, one)| (*one).to_owned())
            .collect()
    }

    fn patterns() -> impl Strategy<Value = BTreeSet<String>> {
        any::<u8>().prop_map(|bits| picked(bits, &PATTERNS))
    }

    /// Roles without a circle.
    pub(in super::super) fn graphs() -> impl Strategy<Value = BTreeMap<String, RoleSpec>> {
        prop::collection::vec((any::<u8>(), any::<u8>()), 1..=8).prop_map(|bits| {
            let mut roles = Vec::new();
            for (at, (parents, permissions)) in bits.into_iter().enumerate() {
                let level = i64::try_from(at).unwrap() + 1;
                let mut one = role(NAMES[at], level, &[], &[]);
                one.inherits = picked(parents, &NAMES[..at]);
                one.permissions = picked(permissions, &PATTERNS);
                roles.push(one);
            }
            all(roles)
        })
    }

    fn grants() -> impl Strategy<Value = Vec<Granted>> {
        prop::collection::vec((0usize..8, 0usize..8, 0usize..8), 0..6).prop_map(|picks| {
            picks
                .into_iter()
                .map(|(who, place, what)| granted(NAMES[who], SCOPES[place], PATTERNS[what], NAMES[who]))
                .collect()
        })
    }

    /// Every role that one has the permissions of, and how far away it is.
    fn ancestors(name: &str, roles: &BTreeMap<String, RoleSpec>) -> BTreeMap<String, usize> {
        let mut far = BTreeMap::from([(name.to_owned(), 0)]);
        for parent in &roles[name].inherits {
            for (one, steps) in ancestors(parent, roles) {
                let known = far.entry(one).or_insert(usize::MAX);
                *known = (*known).min(steps + 1);
            }
        }
        far
    }

    #[test]
    fn the_servers_own_permissions_are_patterns_that_stand_once() {
        let names: BTreeSet<&str> = OWN.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), OWN.len());
        for (name, opens) in OWN {
            assert!(Permission::parse("p", name).is_ok() && Pattern::parse("p", name).is_ok(), "{name}");
            assert!(is_own(name) && !opens.is_empty(), "{name}");
        }
        for own in ["*", "users:*", "users:fly"] {
            assert!(is_own(own), "{own}");
        }
        for other in ["course:view", "user:read", "users.more:read", "users", "", ":", "course:*"] {
            assert!(!is_own(other), "{other:?}");
        }
    }

    #[test]
    fn names_and_permissions_have_one_spelling() {
        let (word, too_long) = ("x".repeat(64), "x".repeat(65));
        for fine in ["instructor", "0", "a.b_c-d", &word] {
            assert_eq!(RoleName::parse("name", fine), Ok(RoleName(fine.to_owned())));
            assert!(Permission::parse("p", &format!("{fine}:{fine}")).is_ok(), "{fine}");
            assert!(Pattern::parse("p", &format!("{fine}:*")).is_ok(), "{fine}");
        }
        for wrong in ["", "Instructor", "-a", ".a", "_a", "a b", "a\n", "a/b", "ä", "*", &too_long] {
            assert_eq!(RoleName::parse("name", wrong).unwrap_err().code, "invalid", "{wrong:?}");
            for text in [format!("{wrong}:view"), format!("course:{wrong}"), wrong.to_owned()] {
                assert!(Permission::parse("p", &text).is_err(), "{text:?}");
                assert_eq!(
                    Pattern::parse("p", &text).is_ok(),
                    ["*", "course:*"].contains(&text.as_str()),
                    "{text:?}"
                );
            }
        }
        for wrong in ["course", "a:b:c", "*:*", "*:view", "course:**", "course:v*", ":", " *"] {
            assert!(
                Permission::parse("p", wrong).is_err() && Pattern::parse("p", wrong).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_typo_in_the_servers_own_areas_is_answered_with_what_there_is() {
        let refused = Pattern::parse("permissions", "users:raed").unwrap_err();
        assert_eq!((refused.field.as_str(), refused.code), ("permissions", "invalid"));
        for there in ["users:read", "users:write", "users:impersonate", "users:*"] {
            assert!(refused.message.contains(there), "{}", refused.message);
        }
        assert_eq!(Pattern::parse("p", "users:*").unwrap().as_str(), "users:*");
        assert_eq!(Pattern::parse("p", "*").unwrap().as_str(), "*");
        assert!(Pattern::parse("p", "user:raed").is_ok(), "an application's own");
    }

    #[test]
    fn a_resource_is_a_plain_path_and_a_scope_is_one_or_many_or_everything() {
        let (long, too_long) = ("x".repeat(200), "x".repeat(201));
        for fine in ["course", "course/42", "Course/a_b.c~d-e/9", "a/...", &long] {
            assert_eq!(resource(fine).as_str(), fine);
            assert_eq!(Scope::parse("on", fine).unwrap().as_str(), fine);
        }
        for wrong in [
            "/", "/course", "course/", "a//b", "a/./b", "a/../b", "..", "a b", "a%2fb", "ä", "a\n", "a:b",
            &too_long,
        ] {
            assert_eq!(Resource::parse("resource", wrong).unwrap_err().code, "invalid", "{wrong:?}");
            assert!(Scope::parse("on", wrong).is_err(), "{wrong:?}");
        }
        assert!(Resource::parse("resource", "").is_err() && Scope::parse("on", "").is_ok());
        assert!(Resource::parse("resource", "course/*").is_err() && Scope::parse("on", "course/*").is_ok());
        for wrong in
            ["*", "/*", "course*", "*/42", "course/*/x", "course/**", "course/4*", &format!("{long}/*")]
        {
            assert!(Scope::parse("on", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_scope_covers_what_it_names() {
        for (scope, covered, others) in [
            ("", vec!["course", "course/42"], vec![]),
            ("course/42", vec!["course/42"], vec!["course", "course/4", "course/421", "course/42/lesson/1"]),
            ("course/*", vec!["course/42", "course/42/lesson/1"], vec!["course", "courses/42", "Course/42"]),
            ("course/42/*", vec!["course/42/lesson/1"], vec!["course/42", "course/421/lesson/1"]),
        ] {
            let parsed = Scope::parse("on", scope).unwrap();
            assert_eq!(parsed.covers(None), scope.is_empty(), "{scope:?}");
            for text in covered {
                assert!(parsed.covers(Some(&resource(text))), "{scope:?} {text}");
            }
            for text in others {
                assert!(!parsed.covers(Some(&resource(text))), "{scope:?} {text}");
            }
        }
    }

    #[test]
    fn the_nearest_declaration_is_named_and_of_equally_near_ones_the_first() {
        let roles = all(vec![
            role("base", 0, &[], &["course:view", "forum:read"]),
            role("left", 1, &["base"], &["course:edit"]),
            role("right", 1, &["base"], &["course:edit", "forum:read"]),
            role("top", 2, &["left", "right"], &["course:view"]),
            owner(),
        ]);
        let expected = vec![
            effect("base", "course:view", "base"),
            effect("base", "forum:read", "base"),
            effect("left", "course:edit", "left"),
            effect("left", "course:view", "base"),
            effect("left", "forum:read", "base"),
            effect("owner", "*", "owner"),
            effect("right", "course:edit", "right"),
            effect("right", "course:view", "base"),
            effect("right", "forum:read", "right"),
            effect("top", "course:edit", "left"),
            effect("top", "course:view", "top"),
            effect("top", "forum:read", "right"),
        ];
        assert_eq!(effects(&roles), Ok(expected));
        assert_eq!(effects(&BTreeMap::new()), Ok(Vec::new()));
    }

    #[test]
    fn roles_that_do_not_hold_together_are_refused_in_words() {
        for (roles, words) in [
            (vec![role("a", 1, &["b"], &[]), role("b", 1, &["a"], &[])], "a → b → a"),
            (vec![role("a", 1, &["b"], &[]), role("b", 2, &["a"], &[])], "a → b → a"),
            (
                vec![role("a", 1, &["b"], &[]), role("b", 1, &["c"], &[]), role("c", 1, &["b"], &[])],
                " b → c → b:",
            ),
            (vec![role("a", 1, &["a"], &[])], "a → a"),
            (vec![role("a", 1, &["ghost"], &[])], "role a inherits from \"ghost\""),
            (vec![role("a", 1, &["b"], &[]), role("b", 2, &[], &[])], "lower than that of b"),
            (vec![role("a", 0, &[], &["users:read"])], "role a has level 0 and may users:read,"),
            (vec![role("a", 0, &[], &["users:*"])], "level 0"),
            (vec![role("a", 0, &[], &["*"])], "level 0"),
            (
                vec![role("a", 0, &["b"], &[]), role("b", 0, &[], &["audit:read"])],
                "may audit:read, through b",
            ),
            (vec![role("a", 100, &[], &[])], "from 0 to 99"),
            (vec![role("a", -1, &[], &[])], "from 0 to 99"),
            (vec![role("a", 99, &["owner"], &[]), owner()], "role a inherits from owner"),
            (vec![role("a", 99, &["owner"], &[])], "role a inherits from owner"),
            (vec![role("owner", 99, &[], &["*"])], "owner cannot be changed"),
            (vec![role("owner", 100, &[], &["users:*"])], "owner cannot be changed"),
            (vec![role("owner", 100, &[], &["*", "users:*"])], "owner cannot be changed"),
            (vec![role("owner", 100, &["a"], &["*"]), role("a", 0, &[], &[])], "owner cannot be changed"),
        ] {
            let refused = effects(&all(roles)).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn nobody_hands_out_more_of_the_servers_own_than_they_hold() {
        for (given, held, within) in [
            (vec!["users:read"], vec!["users:read"], true),
            (vec!["users:read"], vec!["users:*"], true),
            (vec!["users:*"], vec!["users:*"], true),
            (vec!["users:*", "*"], vec!["*"], true),
            (vec!["course:*", "grade:write"], vec![], true),
            (vec![], vec![], true),
            (vec!["users:*"], vec!["users:read", "users:write", "users:impersonate"], false),
            (vec!["*"], vec!["users:*", "course:*"], false),
            (vec!["users:read", "audit:read"], vec!["users:*"], false),
            (vec!["users:read"], vec!["course:*", "user:*"], false),
        ] {
            assert_eq!(own_within(&set(&given), &set(&held)), within, "{given:?} {held:?}");
        }
    }

    #[test]
    fn the_reason_is_the_widest_grant() {
        let publish = permission("course:publish");
        let here = resource("course/42");
        let everywhere = granted("admin", "", "course:*", "admin");
        let inherited = granted("admin", "", "course:publish", "instructor");
        let exact = granted("instructor", "course/42", "course:publish", "student");
        let near = granted("tutor", "course/*", "course:*", "tutor");
        let other = granted("instructor", "course/43", "*", "instructor");
        let view = granted("student", "", "course:view", "student");
        for (grants, because) in [
            (vec![&view, &near, &exact, &inherited, &everywhere], "role admin"),
            (vec![&view, &near, &exact, &inherited], "role admin, through instructor"),
            (vec![&near, &exact, &other], "role instructor on course/42, through student"),
            (vec![&other, &near], "role tutor on course/*"),
        ] {
            let grants: Vec<Granted> = grants.into_iter().cloned().collect();
            let decision = decide(&grants, &publish, Some(&here));
            assert_eq!(decision, Decision { allowed: true, because: because.to_owned() });
        }
        let denied = |because: &str| Decision { allowed: false, because: because.to_owned() };
        let grants = [view, other];
        assert_eq!(
            decide(&grants, &publish, Some(&here)),
            denied("no role grants course:publish on course/42")
        );
        assert_eq!(decide(&[exact, near], &publish, None), denied("no role grants course:publish"));
    }

    proptest! {
        #[test]
        fn a_role_may_what_it_and_its_ancestors_declare_through_the_nearest(roles in graphs()) {
            let mut expected = Vec::new();
            for name in roles.keys() {
                let far = ancestors(name, &roles);
                let of = |one: &String| &roles[one.as_str()].permissions;
                let declared: BTreeSet<String> = far.keys().flat_map(|one| of(one).iter().cloned()).collect();
                for permission in &declared {
                    let declaring = far.iter().filter(|(one, _)| of(one).contains(permission));
                    let (_, via) = declaring.map(|(one, steps)| (*steps, one)).min().unwrap();
                    expected.push(effect(name, permission, via));
                }
            }
            prop_assert_eq!(effects(&roles), Ok(expected));
        }

        #[test]
        fn a_step_back_closes_a_circle(graph in graphs(), at in any::<usize>()) {
            let mut roles = graph;
            prop_assert_eq!(circle(&roles), None);
            let pairs: Vec<(String, String)> = roles
                .keys()
                .flat_map(|name| ancestors(name, &roles).into_keys().map(move |far| (name.clone(), far)))
                .collect();
            let (name, ancestor) = &pairs[at % pairs.len()];
            roles.get_mut(ancestor).unwrap().inherits.insert(name.clone());
            let way = circle(&roles).unwrap();
            prop_assert!(way.len() > 1 && way.first() == way.last());
            prop_assert!(way.windows(2).all(|step| roles[step[0]].inherits.contains(step[1])));
            let refused = effects(&roles).unwrap_err();
            prop_assert!(refused.contains(&way.join(" → ")), "{}", refused);
        }

        #[test]
        fn what_may_be_handed_out_is_what_is_held(
            one in patterns(), other in patterns(), third in patterns(), asked in 0usize..OWN.len()
        ) {
            prop_assert!(own_within(&one, &one));
            if own_within(&one, &other) && own_within(&other, &third) {
                prop_assert!(own_within(&one, &third));
            }
            let (asked, _) = OWN[asked];
            if own_within(&one, &other) && holds(&one, asked) {
                prop_assert!(holds(&other, asked));
            }
        }

        #[test]
        fn a_permission_is_granted_by_its_three_patterns_and_no_other(
            area in "[ab]{1,2}", action in "[ab]{1,2}", held in "([ab]{1,2}:)?([ab]{1,2}|\\*)"
        ) {
            let asked = permission(&format!("{area}:{action}"));
            prop_assert_eq!(holds(&set(&[held.as_str()]), asked.as_str()), asked.patterns().contains(&held));
        }

        #[test]
        fn nobody_is_allowed_anything_without_a_grant_that_covers_it(grants in grants(), place in 0usize..5) {
            let publish = permission("course:publish");
            let places = ["", "course/42", "course/4", "course/42/lesson/1", "courses/42"];
            let text = Some(places[place]).filter(|text| !text.is_empty());
            let asked = text.map(resource);
            let covering: Vec<&Granted> = grants
                .iter()
                .filter(|grant| publish.patterns().contains(&grant.permission))
                .filter(|grant| match (grant.resource.as_str(), text) {
                    ("", _) => true,
                    (_, None) => false,
                    (scope, Some(text)) if scope.ends_with("/*") => text.starts_with(scope.trim_end_matches('*')),
                    (scope, Some(text)) => scope == text,
                })
                .collect();
            let decision = decide(&grants, &publish, asked.as_ref());
            prop_assert_eq!(decision.allowed, !covering.is_empty());
            let named = |grant: &&Granted| match grant.resource.as_str() {
                "" => decision.because == format!("role {}", grant.role),
                scope => decision.because == format!("role {} on {scope}", grant.role),
            };
            prop_assert_eq!(decision.allowed, covering.iter().any(named), "{}", decision.because);
        }

        #[test]
        fn what_is_taken_is_kept_as_it_is(text in "\\PC{0,12}|[a-z.*/:]{0,6}") {
            if let Ok(name) = RoleName::parse("f", &text) {
                prop_assert_eq!(&name.0, &text);
            }
            if let Ok(one) = Permission::parse("f", &text) {
                prop_assert_eq!(one.as_str(), &text);
            }
            if let Ok(one) = Pattern::parse("f", &text) {
                prop_assert_eq!(one.as_str(), &text);
            }
            if let Ok(scope) = Scope::parse("f", &text) {
                prop_assert_eq!(scope.as_str(), &text);
            }
            if let Ok(one) = Resource::parse("f", &text) {
                prop_assert_eq!(one.as_str(), &text);
                prop_assert!(Scope::parse("f", &text).unwrap().covers(Some(&one)));
                let many = Scope::parse("f", &format!("{text}/*")).unwrap();
                let below = resource(&format!("{text}/x"));
                prop_assert!(!many.covers(Some(&one)) && many.covers(Some(&below)));
            }
        }
    }
}
