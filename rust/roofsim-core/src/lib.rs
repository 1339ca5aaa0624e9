//! `roofsim-core`: the arithmetic of an LLM inference cost oracle.
//!
//! No Python, no files, no clock, no printing: give it a model, an accelerator and a layout and it says what a forward
//! step costs, what limits it and how many sequences fit.

pub mod arithmetic;
pub mod calibration;
pub mod capacity;
pub mod deployment;
pub mod engine;
pub mod error;
pub mod format;
pub mod hardware;
pub mod model;
mod nearest;
pub mod ops;
pub mod parallel;
pub mod plan;
pub mod roofline;
pub mod step;
pub mod sweep;
pub mod workload;

pub use error::{Error, Result};

/// The README's Rust snippet must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
