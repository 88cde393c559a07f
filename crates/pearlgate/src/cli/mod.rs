//! The command line.

mod admin;
mod audit;
mod breach;
mod doctor;
mod drill;
mod hash;
mod jobs;
mod keys;
mod limits;
mod mail;
mod migrate;
mod people;
mod progress;
mod provider;
mod roles;
mod serve;
mod session;
mod user;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::aot::{self, Shell};
use foundation::config::{ConfigError, Layers};
use serde_json::{Value, json};

use crate::server::StartError;
use crate::settings::{self, Purpose, SECRETS, Settings};

/// An accounts server: knows who people are, lets them in, keeps everybody else out.
#[derive(Parser)]
#[command(
    name = "pearlgate",
    version,
    about,
    arg_required_else_help = true,
    after_help = "\
Try it out:          pearlgate serve --dev
In production:       pearlgate keys generate > master.key
                     PEARLGATE__SECRETS__MASTER_KEY_FILE=master.key \\
                     PEARLGATE__SERVER__PUBLIC_URL=https://accounts.example.com pearlgate serve
Every setting:       pearlgate config show --default"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(Serve),
    /// Bring the database's schema up to date, or say what that would do
    Migrate {
        /// Change nothing; exit with 1 when something is to be done
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Look at settings, data directory, database and mail server, and say what is wrong
    Doctor(Common),
    /// Master and signing keys
    #[command(subcommand)]
    Keys(Keys),
    /// Settings
    #[command(subcommand)]
    Config(Config),
    /// Breached passwords: build a local filter, check a password
    #[command(subcommand)]
    Breach(Breach),
    /// Password hashing
    #[command(subcommand)]
    Hash(Hash),
    /// Bring people here from another system or from an export
    #[command(subcommand)]
    Import(Import),
    /// Write people into a file
    #[command(subcommand)]
    Export(Export),
    /// The first operator
    #[command(subcommand)]
    Admin(Admin),
    /// Roles: see them, apply a file of them, ask who may what
    #[command(subcommand, alias = "role")]
    Roles(Roles),
    /// Look at somebody, give them roles, shut them out, let them in again, unlock them, end their sessions
    #[command(subcommand)]
    User(User),
    /// Where somebody is signed in
    #[command(subcommand, alias = "sessions")]
    Session(Session),
    /// Who else signs people in: Google, GitHub, any OpenID provider
    #[command(subcommand)]
    Provider(Provider),
    /// What became of mails, and addresses that are left alone
    #[command(subcommand)]
    Mail(Mail),
    /// Applications that are told what happens to people
    #[command(subcommand)]
    Webhook(Webhook),
    /// What the server still has to do, and what it gave up
    #[command(subcommand, alias = "jobs")]
    Job(Job),
    /// What happened: look at it, check that nothing of it was changed, write it into a file
    #[command(subcommand)]
    Audit(Audit),
    /// Limits and lockout
    #[command(subcommand)]
    Limits(Limits),
    /// Break what the server depends on while people use it, and say what failed
    Drill(Drill),
    /// Print what a shell needs to complete these commands
    #[command(after_help = "\
bash:  pearlgate completions bash > ~/.local/share/bash-completion/completions/pearlgate
zsh:   pearlgate completions zsh > DIR/_pearlgate, with a DIR that $fpath names
fish:  pearlgate completions fish > ~/.config/fish/completions/pearlgate.fish")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Args)]
#[command(after_help = "\
Without --url it starts a server of its own in dev mode and throws it away. Exit 0: nothing failed and everything \
recovered; 1: not so, or the drill could not be done. The database part has a PostgreSQL of its own, if this machine has one.")]
struct Drill {
    /// A server in dev mode that runs already
    #[arg(long, value_name = "URL", value_parser = drill::address)]
    url: Option<String>,
    /// How many people are signed in and active [default: 12000; 200 with --short; 50 with --url]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    people: Option<u32>,
    /// Less of everything, in under a minute
    #[arg(long)]
    short: bool,
    /// Print one JSON document instead of the table
    #[arg(long)]
    json: bool,
    /// Leave out the part about the database
    #[arg(long)]
    skip_database: bool,
}

#[derive(Subcommand)]
#[command(after_help = "\
What became of a mail is remembered for 30 days: waiting, sent (a provider took it), delivered, bounced or complained (the \
provider told so afterwards, if mailers.NAME.events_secret is set), suppressed (its address is left alone), given_up (of no \
use any more before anybody took it).")]
enum Mail {
    /// The newest mails, or those to one address
    List {
        /// To whom
        #[arg(long, value_name = "ADDRESS")]
        to: Option<String>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u16,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// One mail
    Show {
        /// Its id (mail_…)
        id: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Addresses that are left alone because nobody could be reached there
    Suppressions {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u16,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Write to such an address again
    Lift {
        /// The address
        address: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
#[command(after_help = "\
A job that was done is not there any more. What a job needs for its work is not shown: it may be somebody's secret.")]
enum Job {
    /// The newest jobs
    List {
        /// Only those that wait, run, or were given up
        #[arg(long, value_name = "STATE", value_parser = ["waiting", "running", "dead"])]
        state: Option<String>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u16,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// One job, and what went wrong with it
    Show {
        /// Its id (job_…)
        id: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Have a job done that was given up: at once, as if it had never been tried
    Retry {
        /// Its id (job_…)
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Drop a job that waits or was given up: it is not done
    Remove {
        /// Its id (job_…)
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
enum Session {
    /// Every living session of somebody, the newest first
    List {
        /// The account's address or id (usr_…)
        who: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// End one session of somebody, or every one
    End {
        /// The account's address or id (usr_…)
        who: String,
        /// Which one (ses_…); without it every one
        #[arg(value_name = "SES_ID")]
        session: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
#[command(after_help = "\
Messages are signed as Standard Webhooks 1.0 has it; libraries that check them exist for most languages. An event is tried \
for three days, each person's in their order, and may come twice: its webhook-id stays the same. What is changed here holds \
for every server on the same database.")]
enum Webhook {
    /// Show them all
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Tell an application what happens from now on; shows the secret that its messages are signed with, once
    Add {
        /// Where it is told: https, and public unless webhooks.private_hosts names it
        url: String,
        /// What it wants to be told of, with commas between: such as user.created,session.ended; * for everything
        #[arg(long, value_name = "TYPES", default_value = "*")]
        events: String,
        /// What it is, for whoever looks at the list
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        #[command(flatten)]
        common: Common,
    },
    /// Tell it nothing any more
    Remove {
        /// Its id (whk_…)
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give it another secret; messages are signed with both for a day
    Rotate {
        /// Its id (whk_…)
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Tell it nothing for now; what happens waits
    Pause {
        /// Its id (whk_…)
        id: String,
        /// Why, for whoever looks at the list
        #[arg(long, value_name = "TEXT", default_value = "paused")]
        reason: String,
        #[command(flatten)]
        common: Common,
    },
    /// Tell it again, and what happened meanwhile
    Resume {
        /// Its id (whk_…)
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// What came of the newest messages
    Deliveries {
        /// Its id (whk_…)
        id: String,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u16,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Tell it again what happened, also what was given up
    Replay {
        /// Its id (whk_…)
        id: String,
        /// From when on: a time (2026-11-26T09:00:00Z), how long ago (2h), or an event (msg_…)
        #[arg(long, value_name = "WHEN")]
        since: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
#[command(after_help = "\
What is changed here holds for the next request of every server on the same database: none is started anew. Providers can \
also stand in the settings, as [providers.NAME]; those are changed there, and can be disabled here.")]
enum Provider {
    /// Show them all
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Add a provider, or change one that was added
    #[command(after_help = "\
FILE is TOML with the keys of [providers.\"*\"] in `pearlgate config show --default`, such as
    preset = \"google\"
    client_id = \"….apps.googleusercontent.com\"
    client_secret = \"…\"
It is kept sealed in the database. At the provider, register {public_url}/v1/auth/oauth/NAME/callback.")]
    Add {
        /// What it is called in addresses: small letters, digits, hyphens
        name: String,
        /// Its settings
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Let nobody sign in through a provider
    Disable {
        /// What it is called in addresses
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let people sign in through it again
    Enable {
        /// What it is called in addresses
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Take a provider away that was added; identities that are linked at it stay, and let nobody in
    Remove {
        /// What it is called in addresses
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
#[command(after_help = "\
Each event's hash covers the one before it in its chain: a person's (usr_…), the server's own (server), or one of 64 \
(shard_07) for what is about nobody known. Whoever can write to the database can make a chain anew, and it looks whole: keep \
checkpoints where they cannot write. docs/guide/audit.md says the rest.")]
enum Audit {
    /// Check every chain; exit 0: nothing was changed, 2: something was
    Verify {
        /// Hold it against an earlier checkpoint, too
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Write down where every chain is now, to check against later
    Checkpoint {
        /// A new file, readable for you alone; standard output without it
        file: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Write events as NDJSON, oldest first
    Export {
        /// A new file, readable for you alone; standard output without it
        file: Option<PathBuf>,
        #[command(flatten)]
        which: WhichEvents,
        #[command(flatten)]
        common: Common,
    },
    /// Show the newest events
    List {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u16,
        /// Print a line of JSON for each
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        which: WhichEvents,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct WhichEvents {
    /// From when on: a time (2026-11-26T09:00:00Z) or how long ago (7d)
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Before when, likewise
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// What happened to whom: an account's address or id (usr_…), or another chain's name (server)
    #[arg(long, value_name = "WHO")]
    of: Option<String>,
    /// What somebody did: an account's address or id (usr_…), a key's id, or console
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Of one kind, such as sign_in_failed
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
}

#[derive(Subcommand)]
enum Limits {
    /// Replay the sign-ins of the last days under another policy and say whom it would have stopped
    Simulate(Simulate),
}

#[derive(Args)]
#[command(after_help = "\
The policy is a file of settings: what it says about [limits.sign_in], [limits.sign_in_network],
[limits.sign_in_everybody] and [lockout] is laid over the settings in force. Nothing is changed. Sign-ins by password
are written down for as long as limits.history.keep says; accounts are shown by their ids, addresses that nobody has
as slots (?1a2b3c), which several may share. What a limit by network turned away then was never written down.")]
struct Simulate {
    /// How far back, such as 7d or 12h
    #[arg(long, default_value = "7d", value_name = "TIME")]
    since: String,
    /// The policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
#[command(after_help = "\
The first operator is set up once, for ever: here, or on the page behind the link that the server prints when it starts. \
Later ones get their roles from an owner, or with `pearlgate user grant`.")]
enum Admin {
    /// Make somebody the owner; asks for their password
    Create {
        /// Their address; nobody has to prove it
        email: String,
        /// What they are called
        #[arg(long, value_name = "TEXT", default_value = "")]
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Print a new link to the page on which the first operator is set up
    Link {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
#[command(after_help = "\
A file is TOML, such as
    default = [\"student\"]
    [roles.student]
    permissions = [\"course:view\"]
    [roles.instructor]
    level = 10
    inherits = [\"student\"]
    permissions = [\"course:publish\"]
What it changes counts at once, for every server on the same database. docs/guide/roles.md says the rest.")]
enum Roles {
    /// Show them all, with what each may
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Make the roles as a file says; those that are not in it stay
    Apply {
        /// The file
        file: PathBuf,
        /// Change nothing; say what would happen
        #[arg(long)]
        dry_run: bool,
        /// Remove what is not in the file, and nobody has
        #[arg(long)]
        prune: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Ask whether somebody may do something
    Check {
        /// The account's address or id (usr_…)
        who: String,
        /// Such as course:publish
        permission: String,
        /// To what, such as course/42
        #[arg(long, value_name = "RESOURCE")]
        on: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
enum User {
    /// Show what operators see of somebody
    Show {
        /// The account's address or id (usr_…)
        who: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Give somebody a role
    Grant {
        /// The account's address or id (usr_…)
        who: String,
        /// The role's name
        role: String,
        /// For what alone: course/42, or course/* for all of a kind
        #[arg(long, value_name = "RESOURCE")]
        on: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Take a role away from somebody
    Revoke {
        /// The account's address or id (usr_…)
        who: String,
        /// The role's name
        role: String,
        /// For what it was given
        #[arg(long, value_name = "RESOURCE")]
        on: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// End every session of somebody and let nobody sign in to the account
    Suspend {
        /// The account's address or id (usr_…)
        who: String,
        /// Why: for the record, not for the person
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let somebody sign in again
    Unsuspend {
        /// The account's address or id (usr_…)
        who: String,
        #[command(flatten)]
        common: Common,
    },
    /// Delete an account and everything that is stored about its person, some minutes later
    ///
    /// Every session ends at once, and nobody signs in any more. The owner is mailed, and can keep the account until then.
    Delete {
        /// The account's address or id (usr_…)
        who: String,
        /// Do it: without this, nothing is changed
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Keep an account that is to be deleted
    Restore {
        /// The account's address or id (usr_…)
        who: String,
        #[command(flatten)]
        common: Common,
    },
    /// Forget the wrong passwords that keep strangers out of an account
    Unlock {
        /// The account's address or id (usr_…)
        who: String,
        #[command(flatten)]
        common: Common,
    },
    /// Take every second factor of somebody away who lost them, after a waiting period in which the owner can say no
    ///
    /// The owner is mailed at once. Whoever shows a factor, or follows the mail's link, keeps them. Ask for more than an
    /// address before you do this: whoever talks you into it has the account if they also have the password.
    ResetFactors {
        /// The account's address or id (usr_…)
        who: String,
        /// Take it back
        #[arg(long)]
        cancel: bool,
        #[command(flatten)]
        common: Common,
    },
    /// End every session of somebody
    SignOut {
        /// The account's address or id (usr_…)
        who: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
enum Breach {
    /// Make a filter file from the public download of breached hashes (SHA-1 or NTLM, ordered by hash)
    Build(BreachBuild),
    /// Read a password without showing it and say whether it is known; exit 0: not, 1: it is, 2: nobody could be asked
    Check(BreachCheck),
    /// Say what a filter file is
    Show {
        /// The filter
        file: PathBuf,
    },
}

#[derive(Args)]
#[command(after_help = "\
The download is one file of lines `HASH:COUNT`, tens of GB, ordered by hash. It is read once, front to back, with one \
shard in memory; about 2.3 bytes an entry are written. An interrupted build goes on where it was when the same \
command is given again. Then set passwords.breach.filter_file.")]
struct BreachBuild {
    /// Files in the order of their hashes
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The filter to write
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// The files are lists of passwords, one on each line, in any order
    #[arg(long)]
    words: bool,
}

#[derive(Args)]
struct BreachCheck {
    /// Ask this filter file, too
    #[arg(long, value_name = "FILE")]
    filter: Option<PathBuf>,
    /// Ask nobody outside this machine
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Hash {
    /// Measure this machine and propose parameters for the settings
    Calibrate {
        /// How long one hash should take
        #[arg(long, default_value = "250ms", value_name = "TIME")]
        target: String,
        /// The most memory that one hash may take, in MiB
        #[arg(long, default_value_t = 64, value_name = "MIB")]
        memory: u32,
    },
}

#[derive(Subcommand)]
enum Import {
    /// Import people: NDJSON of our own, or another system's export; exit 2 when some records were bad
    Users(ImportUsers),
}

#[derive(Args)]
struct ImportUsers {
    /// The export; - for standard input
    file: PathBuf,
    /// Whose export it is: pearlgate, keycloak, auth0, firebase, supabase, better-auth, django
    #[arg(long, default_value = "pearlgate", value_name = "SYSTEM")]
    from: String,
    /// Change nothing; say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Take the addresses of a Django export as proven
    #[arg(long)]
    assume_verified: bool,
    /// A file with the Firebase project's base64_signer_key
    #[arg(long, value_name = "FILE")]
    firebase_signer_key_file: Option<PathBuf>,
    /// The Firebase project's base64_salt_separator
    #[arg(long, value_name = "BASE64", default_value = "Bw==")]
    firebase_salt_separator: String,
    /// The Firebase project's rounds
    #[arg(long, value_name = "N", default_value_t = 8)]
    firebase_rounds: u32,
    /// The Firebase project's mem_cost
    #[arg(long, value_name = "N", default_value_t = 14)]
    firebase_mem_cost: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Export {
    /// Export everybody as NDJSON, with password hashes and second factors
    Users(ExportUsers),
}

#[derive(Args)]
struct ExportUsers {
    /// A new file, readable for you alone; standard output without it
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Serve {
    /// Dev mode: needs no settings, makes its own keys, keeps mail in a mailbox in the browser, lets you move the
    /// clock and break providers. Only on this machine.
    #[arg(long)]
    dev: bool,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Clone)]
struct Common {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A file with settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Keys {
    /// Print a new master key: 32 random bytes in base64
    Generate,
    /// List the keys that sign access tokens, and what each does now
    List(Common),
    /// Make another signing key: published at once, signing a few minutes later, when every cache has it
    Rotate(Common),
    /// Take a signing key away at once, because somebody else may have it
    Revoke {
        /// Its id, as `pearlgate keys list` shows it
        #[arg(allow_hyphen_values = true)]
        kid: String,
        #[command(flatten)]
        common: Common,
    },
    /// Seal under the current master key what rests under one of secrets.old_master_keys
    Reseal(Common),
}

#[derive(Subcommand)]
enum Config {
    /// Print the settings in force, secrets hidden
    Show {
        /// Print the commented default file instead
        #[arg(long)]
        default: bool,
        #[command(flatten)]
        common: Common,
    },
}

/// Why a command did not do its work: words for a person.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Other(String),
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Migrate { check, common } => migrate::run(&common, check),
        Command::Doctor(common) => doctor::run(&common),
        Command::Keys(Keys::Generate) => keys::generate(),
        Command::Keys(Keys::List(common)) => keys::list(&common),
        Command::Keys(Keys::Rotate(common)) => keys::rotate(&common),
        Command::Keys(Keys::Revoke { kid, common }) => keys::revoke(&common, &kid),
        Command::Keys(Keys::Reseal(common)) => keys::reseal(&common),
        Command::Admin(command) => admin::run(&command),
        Command::Roles(command) => roles::run(&command),
        Command::User(command) => user::run(&command),
        Command::Session(command) => session::run(&command),
        Command::Provider(command) => provider::run(&command),
        Command::Webhook(command) => webhook::run(&command),
        Command::Mail(command) => mail::run(&command),
        Command::Job(command) => jobs::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Drill(options) => drill::run(&options),
        Command::Limits(command) => limits::run(&command),
        Command::Config(Config::Show { default, common }) => show(default, &common),
        Command::Breach(Breach::Build(options)) => breach::build(&options),
        Command::Breach(Breach::Check(options)) => breach::check(&options),
        Command::Breach(Breach::Show { file }) => breach::show(&file),
        Command::Hash(Hash::Calibrate { target, memory }) => hash::run(&target, memory),
        Command::Import(Import::Users(options)) => people::import(&options),
        Command::Export(Export::Users(options)) => people::export(&options),
        Command::Completions { shell } => completions(shell),
    };
    outcome.unwrap_or_else(|failure| {
        complain(&failure.to_string());
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stderr, reason = "a command line program talks to its terminal")]
fn complain(words: &str) {
    eprintln!("pearlgate: {words}");
}

/// One line for whoever reads standard output.
fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// A list as one JSON document.
fn items(all: Vec<Value>) -> String {
    json!({ "items": all }).to_string()
}

/// What strangers wrote does not steer the operator's terminal.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    // Into memory first: what writes it panics when whoever reads it has gone.
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), "pearlgate", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}

fn show(default: bool, common: &Common) -> Result<ExitCode, Failure> {
    if default {
        say(settings::DEFAULTS.trim_end());
    } else {
        say(layers(common)?.show(&SECRETS).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Defaults, file, environment, options.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn layers(common: &Common) -> Result<Layers, ConfigError> {
    let mut layers = settings::layers(common.config.as_deref(), std::env::vars())?;
    if let Some(dir) = &common.data {
        layers.option("--data", "data.dir", &dir.display().to_string())?;
    }
    Ok(layers)
}

/// Settings for commands that only need the database: what serving needs besides is not asked for.
fn lenient(common: &Common) -> Result<Settings, ConfigError> {
    Settings::check(&layers(common)?, Purpose::Tool)
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(|e| Failure::Other(format!("no threads could be started: {e}")))?.block_on(work))
}
