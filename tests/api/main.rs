//! The gate, driven over HTTP as its clients and its operator drive it: one file for each subject.

mod addresses;
mod answers;
mod browsers;
mod chains;
mod config;
mod helpers;
mod limits;
mod management;
mod process;
mod sessions;
mod tokens;
mod upstream;
