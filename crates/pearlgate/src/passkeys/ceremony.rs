//! What an authenticator says, and whether it is true: the relying party's part of WebAuthn Level 3, §7.1 and §7.2. Pure.
//!
//! Each check is a [`Flaw`] of its own, named after what is wrong, so that a test can say which one it met. Steps that the
//! browser does, or that merely name things, have none. Attestation is asked for as `none`: what comes is nothing, or an
//! authenticator's signature with the new key itself.

use ciborium::Value;
use data_encoding::BASE64URL_NOPAD;
use foundation::kernel::sha256;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::cose::{CoseKey, cbor, number, take};

/// §7.1 step 25.
const LONGEST_ID: usize = 1_023;

/// Who we are to an authenticator.
#[derive(Debug, Clone)]
pub struct Party {
    /// The domain that keys are made for.
    pub id: String,
    /// Pages that may use them, to the letter.
    pub origins: Vec<String>,
}

impl Party {
    /// With the address that the server turns out to have, when it was not known before.
    #[must_use]
    pub fn at(mut self, public_url: &str) -> Self {
        let host = public_url.split_once("://").map_or("", |(_, host)| host);
        if self.id.is_empty() {
            host.split(':').next().unwrap_or_default().clone_into(&mut self.id);
        }
        if !public_url.is_empty() && !self.origins.iter().any(|origin| origin == public_url) {
            self.origins.push(public_url.to_owned());
        }
        self
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It cannot be read: base64, JSON, CBOR, a length.
    Unreadable,
    /// `type` is not `public-key`, or `rawId` is another than `id`.
    Credential,
    /// §7.1 step 7, §7.2 step 10.
    Ceremony,
    /// §7.1 step 8, §7.2 step 11.
    Challenge,
    /// §7.1 step 9, §7.2 step 12.
    Origin,
    /// §7.1 step 10, §7.2 step 13: from a frame in somebody else's page.
    CrossOrigin,
    /// §7.1 step 11, §7.2 step 14.
    TopOrigin,
    /// §7.1 step 14, §7.2 step 15.
    Party,
    /// §7.1 step 15, §7.2 step 16.
    Presence,
    /// §7.1 step 16, §7.2 step 17.
    Verification,
    /// §7.1 step 17, §7.2 step 18: a copy of what cannot be copied.
    Backup,
    /// §7.1 step 20, or a key that is none.
    Key,
    /// §7.1 steps 21 and 22.
    Attestation,
    /// §7.1 step 25.
    IdTooLong,
    /// §7.2 step 19: what could not be copied can be now, or the other way round.
    BackupChanged,
    /// §7.2 step 21.
    Signature,
    /// §7.2 step 22: the counter did not go up; there may be two of it.
    Counter,
    /// §7.2 step 6: the key is somebody else's than it says.
    Owner,
}

/// A new key, as `PublicKeyCredential.toJSON()` writes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Registration {
    id: String,
    #[serde(rename = "rawId")]
    raw_id: String,
    r#type: String,
    response: Attested,
}

#[derive(Debug, Clone, Deserialize)]
struct Attested {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    #[serde(rename = "attestationObject")]
    attestation: String,
    #[serde(default)]
    transports: Vec<String>,
}

/// The use of a key, as `PublicKeyCredential.toJSON()` writes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Assertion {
    id: String,
    #[serde(rename = "rawId")]
    raw_id: String,
    r#type: String,
    response: Asserted,
}

#[derive(Debug, Clone, Deserialize)]
struct Asserted {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    #[serde(rename = "authenticatorData")]
    authenticator_data: String,
    signature: String,
    #[serde(rename = "userHandle", default)]
    user_handle: Option<String>,
}

/// What the browser vouches for.
#[derive(Debug, Deserialize)]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    cross_origin: Option<bool>,
    #[serde(rename = "topOrigin", default)]
    top_origin: Option<String>,
}

/// A key that may be kept.
#[derive(Debug, Clone)]
pub(super) struct NewKey {
    pub(super) credential_id: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    pub(super) sign_count: u32,
    pub(super) user_verified: bool,
    pub(super) backup_eligible: bool,
    pub(super) backed_up: bool,
    pub(super) transports: String,
}

/// A key that is kept, as far as its use is checked against it.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    pub(super) public_key: Vec<u8>,
    pub(super) sign_count: i64,
    pub(super) backup_eligible: bool,
    /// What the authenticator was told whose it is.
    pub(super) owner: [u8; 16],
}

/// A key that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) user_verified: bool,
    pub(super) backed_up: bool,
    pub(super) sign_count: u32,
}

/// The name of a credential: the same in both of its spellings, and of the one type there is.
fn credential_id(id: &str, raw_id: &str, kind: &str) -> Result<Vec<u8>, Flaw> {
    if kind != "public-key" || id != raw_id {
        return Err(Flaw::Credential);
    }
    let id = bytes(raw_id)?;
    if id.is_empty() { Err(Flaw::Unreadable) } else { Ok(id) }
}

impl Assertion {
    /// Whether the key signed it, whatever else is wrong with it: whoever does not have the key says nothing about it.
    pub(super) fn is_signed_by(&self, public_key: &[u8]) -> bool {
        let signed = || -> Result<(), Flaw> {
            let client_data = sha256(&bytes(&self.response.client_data)?);
            let data =
                [bytes(&self.response.authenticator_data)?.as_slice(), client_data.as_bytes()].concat();
            CoseKey::read(public_key)?.verify(&data, &bytes(&self.response.signature)?)
        };
        signed().is_ok()
    }

    /// Which key it is of.
    pub(super) fn credential_id(&self) -> Result<Vec<u8>, Flaw> {
        credential_id(&self.id, &self.raw_id, &self.r#type)
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, Flaw> {
    BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).map_err(|_| Flaw::Unreadable)
}

/// §7.1: a new key.
pub(super) fn register(
    answer: &Registration,
    challenge: &[u8],
    party: &Party,
    must_verify: bool,
) -> Result<NewKey, Flaw> {
    let id = credential_id(&answer.id, &answer.raw_id, &answer.r#type)?;
    let client_data = bytes(&answer.response.client_data)?;
    check_client(&client_data, "webauthn.create", challenge, party)?;
    let hash = sha256(&client_data);
    let object = cbor(&bytes(&answer.response.attestation)?)?;
    let (mut format, mut statement, mut auth_data) = (None, None, None);
    for (key, value) in object.into_map().map_err(|_| Flaw::Unreadable)? {
        match (key.as_text(), value) {
            (Some("fmt"), Value::Text(text)) => format = Some(text),
            (Some("attStmt"), Value::Map(map)) => statement = Some(map),
            (Some("authData"), Value::Bytes(data)) => auth_data = Some(data),
            _ => {}
        }
    }
    let (Some(format), Some(statement), Some(raw)) = (format, statement, auth_data) else {
        return Err(Flaw::Unreadable);
    };
    let data = AuthenticatorData::read(&raw)?;
    data.check(party, must_verify)?;
    let credential = data.credential.as_ref().ok_or(Flaw::Unreadable)?;
    let key = CoseKey::read(&credential.public_key)?;
    attestation(&format, &statement, &key, &[&raw, hash.as_bytes().as_slice()].concat())?;
    if credential.id.len() > LONGEST_ID {
        return Err(Flaw::IdTooLong);
    }
    if credential.id != id {
        return Err(Flaw::Credential);
    }
    Ok(NewKey {
        credential_id: id,
        public_key: credential.public_key.clone(),
        sign_count: data.sign_count,
        user_verified: data.user_verified,
        backup_eligible: data.backup_eligible,
        backed_up: data.backed_up,
        transports: transports(&answer.response.transports),
    })
}

/// Hints for the browser; what is not one of the standard's words is left out.
fn transports(given: &[String]) -> String {
    let known = ["ble", "hybrid", "internal", "nfc", "smart-card", "usb"];
    let kept: Vec<&str> =
        known.into_iter().filter(|known| given.iter().any(|given| given == known)).collect();
    kept.join(" ")
}

/// §7.2: the use of a key. `named`: whoever it has to be was known before, so the authenticator need not say.
pub(super) fn assert(
    answer: &Assertion,
    challenge: &[u8],
    party: &Party,
    known: &KnownKey,
    (must_verify, named): (bool, bool),
) -> Result<Used, Flaw> {
    answer.credential_id()?;
    match &answer.response.user_handle {
        Some(handle) if !bool::from(bytes(handle)?.as_slice().ct_eq(known.owner.as_slice())) => {
            return Err(Flaw::Owner);
        }
        None if !named => return Err(Flaw::Owner),
        _ => {}
    }
    let client_data = bytes(&answer.response.client_data)?;
    check_client(&client_data, "webauthn.get", challenge, party)?;
    let raw = bytes(&answer.response.authenticator_data)?;
    let data = AuthenticatorData::read(&raw)?;
    data.check(party, must_verify)?;
    if data.backup_eligible != known.backup_eligible {
        return Err(Flaw::BackupChanged);
    }
    let signed = [&raw, sha256(&client_data).as_bytes().as_slice()].concat();
    CoseKey::read(&known.public_key)?.verify(&signed, &bytes(&answer.response.signature)?)?;
    let counts = data.sign_count > 0 || known.sign_count > 0;
    if counts && i64::from(data.sign_count) <= known.sign_count {
        return Err(Flaw::Counter);
    }
    Ok(Used { user_verified: data.user_verified, backed_up: data.backed_up, sign_count: data.sign_count })
}

fn check_client(data: &[u8], ceremony: &str, challenge: &[u8], party: &Party) -> Result<(), Flaw> {
    // A byte order mark is not part of the text (§5.8.1.1, UTF-8 decode).
    let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    let client: ClientData = serde_json::from_slice(text).map_err(|_| Flaw::Unreadable)?;
    if client.r#type != ceremony {
        return Err(Flaw::Ceremony);
    }
    if !bool::from(bytes(&client.challenge)?.as_slice().ct_eq(challenge)) {
        return Err(Flaw::Challenge);
    }
    if !party.origins.contains(&client.origin) {
        return Err(Flaw::Origin);
    }
    if client.cross_origin == Some(true) {
        return Err(Flaw::CrossOrigin);
    }
    if client.top_origin.is_some() {
        return Err(Flaw::TopOrigin);
    }
    Ok(())
}

/// §6.1.
struct AuthenticatorData {
    party_hash: [u8; 32],
    user_present: bool,
    user_verified: bool,
    backup_eligible: bool,
    backed_up: bool,
    sign_count: u32,
    credential: Option<Credential>,
}

/// §6.5.1.
struct Credential {
    id: Vec<u8>,
    public_key: Vec<u8>,
}

impl AuthenticatorData {
    fn read(raw: &[u8]) -> Result<Self, Flaw> {
        let (party_hash, rest) = raw.split_first_chunk::<32>().ok_or(Flaw::Unreadable)?;
        let (flags, rest) = rest.split_first().ok_or(Flaw::Unreadable)?;
        let (count, mut rest) = rest.split_first_chunk::<4>().ok_or(Flaw::Unreadable)?;
        let flag = |bit: u8| flags & (1 << bit) != 0;
        let credential = if flag(6) { Some(Credential::read(&mut rest)?) } else { None };
        if flag(7) {
            // Nothing was asked for; whatever it says must be readable all the same.
            take(&mut rest)?.into_map().map_err(|_| Flaw::Unreadable)?;
        }
        if !rest.is_empty() {
            return Err(Flaw::Unreadable);
        }
        Ok(Self {
            party_hash: *party_hash,
            user_present: flag(0),
            user_verified: flag(2),
            backup_eligible: flag(3),
            backed_up: flag(4),
            sign_count: u32::from_be_bytes(*count),
            credential,
        })
    }

    fn check(&self, party: &Party, must_verify: bool) -> Result<(), Flaw> {
        let ours: bool = sha256(party.id.as_bytes()).as_bytes().as_slice().ct_eq(&self.party_hash).into();
        let checks = [
            (ours, Flaw::Party),
            (self.user_present, Flaw::Presence),
            (self.user_verified || !must_verify, Flaw::Verification),
            (self.backup_eligible || !self.backed_up, Flaw::Backup),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, flaw)| Err(flaw))
    }
}

impl Credential {
    fn read(rest: &mut &[u8]) -> Result<Self, Flaw> {
        let (_model, after) = rest.split_first_chunk::<16>().ok_or(Flaw::Unreadable)?;
        let (length, after) = after.split_first_chunk::<2>().ok_or(Flaw::Unreadable)?;
        let (id, after) =
            after.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(Flaw::Unreadable)?;
        let mut behind = after;
        take(&mut behind)?;
        let public_key = after.get(..after.len() - behind.len()).ok_or(Flaw::Unreadable)?;
        *rest = behind;
        Ok(Self { id: id.to_vec(), public_key: public_key.to_vec() })
    }
}

/// §7.1 steps 21 to 23: none, or the key's own signature (§8.2, self attestation). Anything else was not asked for.
fn attestation(format: &str, statement: &[(Value, Value)], key: &CoseKey, signed: &[u8]) -> Result<(), Flaw> {
    match format {
        "none" if statement.is_empty() => Ok(()),
        "packed" => {
            let part = |name: &str| statement.iter().find(|(k, _)| k.as_text() == Some(name)).map(|(_, v)| v);
            let algorithm = part("alg").and_then(number);
            let signature = part("sig").and_then(Value::as_bytes);
            match (part("x5c"), algorithm, signature) {
                (None, Some(algorithm), Some(signature)) if algorithm == key.algorithm() => {
                    key.verify(signed, signature).map_err(|_| Flaw::Attestation)
                }
                _ => Err(Flaw::Attestation),
            }
        }
        _ => Err(Flaw::Attestation),
    }
}

#[cfg(test)]
mod tests;
