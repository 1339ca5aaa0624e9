//! Which axes a column depends on, and at which end of an axis it is best.

use super::super::column::Column;
use super::region::{BATCH, CONTEXT, QUERY};

/// A set of numeric axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct AxisSet(u8);

impl AxisSet {
    pub(super) const NONE: Self = Self(0);
    const ALL: Self = Self(0b111);

    const fn of(axis: usize) -> Self {
        Self(1 << axis)
    }

    pub(super) const fn has(self, axis: usize) -> bool {
        self.0 >> axis & 1 == 1
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Axes that a column is different along.
    pub(super) const fn behind(column: Column) -> Self {
        match column {
            Column::BatchSize => Self::of(BATCH),
            Column::ContextTokens | Column::MaxSequences => Self::of(CONTEXT),
            Column::QueryTokens => Self::of(QUERY),
            Column::Fits => Self::of(BATCH).with(Self::of(CONTEXT)),
            _ => Self::ALL,
        }
    }
}

/// Where along an axis a column is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Best {
    /// It is the same everywhere.
    Anywhere,
    Low,
    High,
    /// Neither end: the bound of a region is looser than any of its rows.
    Between,
}

/// Of batch size, context and query tokens.
const fn best(column: Column) -> [Best; 3] {
    use Best::{Anywhere, Between, High, Low};
    match column {
        Column::TimeS | Column::EnergyJ | Column::IdealS | Column::NetworkS | Column::Flops | Column::Bytes => {
            [Low, Low, Low]
        }
        Column::TokensPerS | Column::TokensPerSPerGpu | Column::UsdPerMtok => [Between, Low, Between],
        Column::TokensPerSPerUser => [Low, Low, Between],
        Column::ArithmeticIntensity
        | Column::Mfu
        | Column::Mbu
        | Column::TimeLowS
        | Column::TimeHighS
        | Column::ComputeS
        | Column::MemoryS
        | Column::OverheadS => [Between, Between, Between],
        Column::Fits => [Low, Low, Anywhere],
        Column::MaxSequences => [Anywhere, Low, Anywhere],
        Column::BatchSize => [High, Anywhere, Anywhere],
        Column::ContextTokens => [Anywhere, High, Anywhere],
        Column::QueryTokens => [Anywhere, Anywhere, High],
        _ => [Anywhere, Anywhere, Anywhere],
    }
}

/// What a set of objectives wants of the axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    /// Axes whose division tightens the bounds: some objective is best between the ends, or two pull apart.
    pub(super) torn: AxisSet,
    /// Axes along which objectives are best at the high end.
    pub(super) high: AxisSet,
}

impl Wishes {
    pub(super) fn of(objectives: &[Column]) -> Self {
        let mut wishes = Self { torn: AxisSet::NONE, high: AxisSet::NONE };
        for axis in [BATCH, CONTEXT, QUERY] {
            let wanted = |end: Best| objectives.iter().any(|&column| best(column)[axis] == end);
            if wanted(Best::Between) || (wanted(Best::Low) && wanted(Best::High)) {
                wishes.torn = wishes.torn.with(AxisSet::of(axis));
            }
            if wanted(Best::High) {
                wishes.high = wishes.high.with(AxisSet::of(axis));
            }
        }
        wishes
    }
}
