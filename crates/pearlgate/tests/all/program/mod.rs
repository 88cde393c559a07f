//! The program itself, as a child process: what it says, what it refuses, and what it survives.

pub mod api;
mod audit;
mod breach;
pub mod child;
mod cli;
mod closing;
mod cluster;
mod crash;
mod dev_mode;
mod disk;
mod drill;
mod foreign;
mod limits;
mod mail;
mod migrate;
mod operators;
mod people;
mod postgres;
mod redis;
mod refusals;
mod sessions;
mod smtp;
mod stop;
mod webhooks;
