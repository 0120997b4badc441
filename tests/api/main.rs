//! The gate, driven over HTTP as its clients and its operator drive it: one file for each subject.

mod answers;
mod helpers;
