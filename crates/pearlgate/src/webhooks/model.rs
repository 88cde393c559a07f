//! What is told, how it is signed, and for how long it is tried: pure.

use std::time::Duration;

use data_encoding::BASE64;
use foundation::kernel::{Entity, Entropy, MacKey, Secret, Timestamp};
use serde_json::{Value, json};

/// Ids of endpoints.
#[derive(Debug)]
pub struct EndpointRow;
impl Entity for EndpointRow {
    const PREFIX: &'static str = "whk";
}

/// Ids of events, which are their messages' too: a receiver tells by it what it has heard already.
#[derive(Debug)]
pub struct MessageRow;
impl Entity for MessageRow {
    const PREFIX: &'static str = "msg";
}

/// Ids of signing secrets.
#[derive(Debug)]
pub(super) struct SecretRow;
impl Entity for SecretRow {
    const PREFIX: &'static str = "whs";
}

/// Everything that an application may want to be told of.
pub const TYPES: &[&str] = &[
    "user.created",
    "user.updated",
    "user.suspended",
    "user.unsuspended",
    "user.deleted",
    "session.ended",
    "password.changed",
    "mfa.changed",
    "identity.linked",
    "identity.unlinked",
    "role.changed",
    "account.locked",
    "account.unlocked",
];

/// For so long an event is tried.
pub(super) const TRIED_FOR: Duration = Duration::from_secs(72 * 3600);
/// How long a secret that was replaced goes on signing beside the new one.
pub(super) const OVERLAP: Duration = Duration::from_secs(86_400);
/// What signing secrets rest sealed for.
pub(super) const SEALED_FOR: &str = "webhook";
/// How secrets begin (Standard Webhooks, "Signature scheme").
const PREFIX: &str = "whsec_";

/// What an application is told when this stands in somebody's trail; nothing for what is nobody else's concern.
pub(super) fn of_trail(kind: &str, details: &Value) -> Option<(&'static str, Value)> {
    let of = |key: &str| details.get(key).cloned().unwrap_or_default();
    Some(match kind {
        "email_verified" => ("user.created", json!({})),
        "profile_changed" => ("user.updated", json!({ "fields": of("fields") })),
        "email_changed" => ("user.updated", json!({ "fields": ["email"] })),
        "suspended" => ("user.suspended", json!({})),
        "unsuspended" => ("user.unsuspended", json!({})),
        "user_deleted" => ("user.deleted", json!({})),
        "password_changed" | "password_reset" => ("password.changed", json!({})),
        "factor_added" | "factor_replaced" | "factor_removed" | "factor_switched_off" => {
            ("mfa.changed", json!({ "change": kind, "factor": of("factor") }))
        }
        "factors_reset" | "recovery_codes_made" => ("mfa.changed", json!({ "change": kind })),
        "email_code_on" => ("mfa.changed", json!({ "change": "factor_added", "factor": "email_code" })),
        "email_code_off" => ("mfa.changed", json!({ "change": "factor_removed", "factor": "email_code" })),
        "identity_linked" => ("identity.linked", json!({ "provider": of("provider") })),
        "identity_unlinked" => ("identity.unlinked", json!({ "provider": of("provider") })),
        "role_granted" | "role_revoked" => {
            ("role.changed", json!({ "change": kind, "role": of("role"), "resource": of("resource") }))
        }
        "account_locked" => ("account.locked", json!({})),
        "account_unlocked" => ("account.unlocked", json!({})),
        _ => return None,
    })
}

/// The types in a list such as `user.created,session.ended`; `*` is all of them.
///
/// # Errors
/// In words, which of them there is not.
pub(super) fn types(list: &str) -> Result<Vec<&'static str>, String> {
    let names: Vec<&str> = list.split(',').map(str::trim).collect();
    named(&names)
}

/// The types with these names, each once; `*` is all of them.
///
/// # Errors
/// As [`types`].
pub(super) fn named(names: &[&str]) -> Result<Vec<&'static str>, String> {
    if names.contains(&"*") {
        return Ok(TYPES.to_vec());
    }
    let known = |name: &&str| {
        TYPES.iter().copied().find(|known| known == name).ok_or_else(|| {
            format!("{name:?} is nothing that is told; there are {}, and \"*\" for all", TYPES.join(", "))
        })
    };
    let mut types: Vec<_> = names.iter().map(known).collect::<Result<_, _>>()?;
    types.sort_unstable();
    types.dedup();
    Ok(types)
}

/// A new signing secret: 256 bits.
pub(super) fn secret(chance: &Entropy) -> Secret {
    Secret::new(format!("{PREFIX}{}", BASE64.encode(&chance.bytes::<32>())))
}

/// Signs a message with one secret after the other (Standard Webhooks, "Signature scheme"): whoever knows one of them
/// believes it.
pub(super) fn signature(secrets: &[Secret], id: &str, at: Timestamp, body: &[u8]) -> String {
    let signed = [id.as_bytes(), b".", at.seconds().to_string().as_bytes(), b".", body].concat();
    let one = |secret: &Secret| {
        let key = BASE64.decode(secret.reveal().trim_start_matches(PREFIX).as_bytes()).ok()?;
        Some(format!("v1,{}", BASE64.encode(MacKey::new(&key).mac(&signed).as_bytes())))
    };
    secrets.iter().filter_map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_standard_says() {
        // The example of the specification's reference libraries.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let at = Timestamp::from_micros(1_614_265_330_000_000);
        let signed = signature(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let (one, other) = (super::secret(&Entropy::System), super::secret(&Entropy::System));
        let both = signature(&[one.clone(), other.clone()], "msg_1", at, b"{}");
        let alone = |secret: Secret| signature(&[secret], "msg_1", at, b"{}");
        assert_eq!(both, format!("{} {}", alone(one), alone(other)));
    }

    #[test]
    fn types_are_named_exactly() {
        assert_eq!(types("*").unwrap(), TYPES);
        assert_eq!(
            types(" session.ended, user.created,session.ended").unwrap(),
            ["session.ended", "user.created"]
        );
        for wrong in ["", "user", "user.*", "user.created,", "User.created"] {
            assert!(types(wrong).unwrap_err().contains("session.ended"), "{wrong:?}");
        }
    }

    #[test]
    fn what_stands_in_the_trail_is_told_by_a_type_that_one_can_ask_for() {
        let mut told = 0;
        for kind in [
            "email_verified",
            "profile_changed",
            "email_changed",
            "suspended",
            "unsuspended",
            "user_deleted",
            "password_changed",
            "password_reset",
            "factor_added",
            "factor_removed",
            "factors_reset",
            "identity_linked",
            "identity_unlinked",
            "account_locked",
            "account_unlocked",
            "email_code_on",
        ] {
            let (name, data) = of_trail(kind, &json!({ "factor": "totp" })).unwrap();
            assert!(TYPES.contains(&name) && data.is_object(), "{kind}");
            told += 1;
        }
        assert_eq!(told, 16);
        for kind in ["sign_in", "sign_in_failed", "reauthenticated", "password_reset_requested"] {
            assert!(of_trail(kind, &json!({})).is_none(), "{kind}");
        }
    }
}
