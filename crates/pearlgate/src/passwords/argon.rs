//! Argon2 itself: deriving, writing down, reading back, checking.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, KeyId, Params, ParamsBuilder, Version};
use foundation::kernel::{Entropy, Secret};
use subtle::ConstantTimeEq;

use crate::settings::{MAX_HASH_LANES, MAX_STORED_MEMORY, MAX_STORED_WORK};

pub(super) const SALT: usize = 16;
const OUTPUT: usize = 32;

/// Argon2id's cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// KiB.
    pub memory: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// A key that goes into every hash and is kept outside the database (NIST SP 800-63B-4 §3.1.1.2): whoever steals the
/// hashes alone cannot guess at them. Argon2 takes it as its secret value (RFC 9106 §3.1); its id is written beside
/// the parameters.
#[derive(Debug, Clone)]
pub struct Pepper {
    /// At most eight letters, digits or dashes.
    pub id: String,
    /// 32 bytes, in base64; this text is what goes into the hash.
    pub key: Secret,
}

/// The pepper that new hashes get, if any, and those that older ones may have.
#[derive(Debug, Clone, Default)]
pub struct Peppers {
    /// For new hashes.
    pub current: Option<Pepper>,
    /// For checking.
    pub older: Vec<Pepper>,
}

impl Peppers {
    fn find(&self, id: &[u8]) -> Option<&Pepper> {
        self.current.iter().chain(&self.older).find(|pepper| pepper.id.as_bytes() == id)
    }
}

/// A stored hash of ours, read.
pub(super) struct Stored {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Salt,
    expected: Output,
}

/// What a stored hash asks for and we do not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownPepper(pub(super) String);

impl Stored {
    /// None when it is not an Argon2 hash, or asks for more than the caps allow: more would be somebody's attempt to
    /// keep a thread and its memory busy.
    pub(super) fn read(text: &str, cost: Cost) -> Option<Self> {
        let hash = PasswordHash::new(text).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        let version = match hash.version {
            None => Version::V0x10,
            Some(number) => Version::try_from(number).ok()?,
        };
        let params = Params::try_from(&hash).ok()?;
        let work = |memory: u32, passes: u32| u64::from(memory) * u64::from(passes);
        let modest = params.m_cost() <= cost.memory.max(MAX_STORED_MEMORY)
            && work(params.m_cost(), params.t_cost()) <= work(cost.memory, cost.passes).max(MAX_STORED_WORK)
            && params.p_cost() <= MAX_HASH_LANES;
        Some(Self { algorithm, version, salt: hash.salt?, expected: hash.hash?, params }).filter(|_| modest)
    }

    /// Whether it should be made anew: weaker than `cost`, of another kind, or without the current pepper.
    pub(super) fn outdated(&self, cost: Cost, peppers: &Peppers) -> bool {
        let current = peppers.current.as_ref().map_or(&[][..], |pepper| pepper.id.as_bytes());
        self.algorithm != Algorithm::Argon2id
            || self.version != Version::V0x13
            || self.params.m_cost() < cost.memory
            || self.params.t_cost() < cost.passes
            || self.params.keyid() != current
    }

    /// Whether it costs as much as this.
    pub(super) fn costs(&self, cost: Cost) -> bool {
        let p = &self.params;
        (p.m_cost(), p.t_cost(), p.p_cost()) == (cost.memory, cost.passes, cost.lanes)
    }

    /// The algorithm and its parameters.
    pub(super) fn work(&self) -> String {
        let p = &self.params;
        format!("{} m={} t={} p={}", self.algorithm, p.m_cost(), p.t_cost(), p.p_cost())
    }

    pub(super) fn verify(
        &self,
        password: &[u8],
        peppers: &Peppers,
        memory: &mut Vec<Block>,
    ) -> Result<bool, UnknownPepper> {
        let id = self.params.keyid();
        let pepper = match id {
            [] => None,
            id => Some(
                peppers.find(id).ok_or_else(|| UnknownPepper(String::from_utf8_lossy(id).into_owned()))?,
            ),
        };
        let Some(argon) = engine(self.algorithm, self.version, &self.params, pepper) else {
            return Ok(false);
        };
        let mut out = vec![0; self.expected.len()];
        let done = fill(&argon, &self.params, password, self.salt.as_ref(), &mut out, memory);
        Ok(done.is_some() && bool::from(out.as_slice().ct_eq(self.expected.as_bytes())))
    }
}

fn engine<'k>(
    algorithm: Algorithm,
    version: Version,
    params: &Params,
    pepper: Option<&'k Pepper>,
) -> Option<Argon2<'k>> {
    match pepper {
        None => Some(Argon2::new(algorithm, version, params.clone())),
        Some(pepper) => {
            Argon2::new_with_secret(pepper.key.reveal().as_bytes(), algorithm, version, params.clone()).ok()
        }
    }
}

fn fill(
    argon: &Argon2<'_>,
    params: &Params,
    password: &[u8],
    salt: &[u8],
    out: &mut [u8],
    memory: &mut Vec<Block>,
) -> Option<()> {
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
    argon.hash_password_into_with_memory(password, salt, out, memory.get_mut(..blocks)?).ok()
}

/// How many blocks a hash of this cost needs.
pub(super) fn blocks(cost: Cost) -> usize {
    params(cost, None).map_or(0, |params| params.block_count())
}

/// The parameters, when Argon2 takes them.
pub(super) fn params(cost: Cost, pepper: Option<&Pepper>) -> Option<Params> {
    let mut builder = ParamsBuilder::new();
    builder.m_cost(cost.memory).t_cost(cost.passes).p_cost(cost.lanes).output_len(OUTPUT);
    if let Some(pepper) = pepper {
        builder.keyid(KeyId::new(pepper.id.as_bytes()).ok()?);
    }
    builder.build().ok()
}

/// Hashes a password, as a PHC string.
pub(super) fn hash(
    cost: Cost,
    pepper: Option<&Pepper>,
    password: &[u8],
    salt: &[u8],
    memory: &mut Vec<Block>,
) -> Option<String> {
    let params = params(cost, pepper)?;
    let mut out = [0; OUTPUT];
    let argon = engine(Algorithm::Argon2id, Version::V0x13, &params, pepper)?;
    fill(&argon, &params, password, salt, &mut out, memory)?;
    write_down(&params, salt, &out)
}

/// A hash that no password has, of the same cost as others: what is checked when there is nobody.
pub(super) fn dummy(cost: Cost, pepper: Option<&Pepper>, chance: &Entropy) -> Option<String> {
    write_down(&params(cost, pepper)?, &chance.bytes::<SALT>(), &chance.bytes::<OUTPUT>())
}

fn write_down(params: &Params, salt: &[u8], out: &[u8; OUTPUT]) -> Option<String> {
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(Output::new(out).ok()?),
    };
    Some(hash.to_string())
}
