//! Readers of `config.json`, one file per architecture family.
