//! Output tiles of a matrix-product kernel on the compute units: what one tile costs, and what waves of them cost.

use crate::arithmetic::{larger, smaller};

/// Elements of k in one stage of a tile's pipeline.
const STAGE: f64 = 64.0;
/// Outputs of the tile whose epilogue is the unit of `epilogue_s`.
const EPILOGUE: f64 = 128.0 * 128.0;

/// Constants of a tiled law, with the rates of the machine folded in.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileConstants {
    /// Number of compute units.
    pub units: f64,
    /// Seconds per FLOP of the whole device inside a tile.
    pub seconds_per_flop: f64,
    /// Seconds in which one unit loads one element of a row of activations.
    pub row_load_s: f64,
    /// Seconds in which one unit loads one element of a column of weights.
    pub column_load_s: f64,
    /// Least seconds of one stage.
    pub stage_s: f64,
    /// Seconds in which one unit writes 128 x 128 outputs.
    pub epilogue_s: f64,
    /// Share of a partly filled last wave that is waited for.
    pub tail: f64,
}

/// The tile sizes that a kernel has, for one number of columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TileGrid<const N: usize> {
    units: f64,
    tail: f64,
    tiles: [Tile; N],
}

/// One tile size; seconds per element of k but for the epilogue.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tile {
    rows: f64,
    column_tiles: f64,
    mma_s: f64,
    /// Loading one row of activations.
    row_load_s: f64,
    /// Loading the columns of weights, and the latency of the pipeline.
    fixed_load_s: f64,
    /// Writing one row of outputs, seconds.
    row_epilogue_s: f64,
}

impl<const N: usize> TileGrid<N> {
    /// Tiles of so many (rows, columns) over `n` columns.
    pub(super) fn new(c: TileConstants, sizes: [(f64, f64); N], n: f64) -> Self {
        let tiles = sizes.map(|(a, b)| {
            let columns = smaller(b, n);
            Tile {
                rows: a,
                column_tiles: (n / b).ceil(),
                mma_s: 2.0 * a * b * c.units * c.seconds_per_flop,
                row_load_s: c.row_load_s,
                fixed_load_s: columns * c.column_load_s + c.stage_s / STAGE,
                row_epilogue_s: columns * c.epilogue_s / EPILOGUE,
            }
        });
        Self { units: c.units, tail: c.tail, tiles }
    }

    /// Rows of a tile size.
    #[inline(always)]
    pub(super) fn rows(&self, tile: usize) -> f64 {
        self.tiles[tile].rows
    }

    /// `(loads and arithmetic, epilogue)` seconds of `row_tiles` rows of tiles that hold `rows` rows each and run
    /// over `k`.
    #[inline(always)]
    pub(super) fn seconds(&self, tile: usize, row_tiles: f64, rows: f64, k: f64) -> (f64, f64) {
        let tile = &self.tiles[tile];
        let exact_waves = larger(row_tiles * tile.column_tiles / self.units, 1.0);
        // A last wave that is partly filled takes part of a whole one; as two products, each monotone in the tiles.
        let waves = (1.0 - self.tail) * exact_waves + self.tail * exact_waves.ceil();
        let step_s = larger(tile.mma_s, rows * tile.row_load_s + tile.fixed_load_s);
        (waves * (step_s * k), waves * (rows * tile.row_epilogue_s))
    }
}
