//! What the sweep's tests share: a generator and the catalogue's models.

use std::path::Path;
use std::sync::Arc;

use roofsim_core::model::Model;

/// A small generator, so that spaces are the same on every run (xorshift, Marsaglia 2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `n`.
    pub(crate) const fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A model of the catalogue, by the name of its file.
pub(crate) fn model(name: &str) -> Arc<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/roofsim/catalog/models");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    Arc::new(Model::from_config_json(&text, name).unwrap())
}
