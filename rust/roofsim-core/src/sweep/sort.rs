//! A sort that can be stopped: runs that are sorted at once, merged pair by pair.

use std::cmp::Ordering;

use crate::error::Result;

/// Items sorted or merged between two looks at whether to go on: a few milliseconds.
const LOOK: usize = 1 << 15;

/// Sorts items whose order is total; asks now and then whether to go on.
pub(super) fn sort<T: Copy>(
    items: &mut Vec<T>,
    order: impl Fn(&T, &T) -> Ordering + Copy,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let several = items.len() > LOOK;
    for run in items.chunks_mut(LOOK) {
        run.sort_unstable_by(order);
        if several {
            go_on()?;
        }
    }
    let mut merged = Vec::with_capacity(if several { items.len() } else { 0 });
    let mut width = LOOK;
    while width < items.len() {
        for pair in items.chunks(2 * width) {
            let (a, b) = pair.split_at(width.min(pair.len()));
            merge(a, b, order, &mut merged, go_on)?;
        }
        std::mem::swap(items, &mut merged);
        merged.clear();
        width *= 2;
    }
    Ok(())
}

/// Appends two sorted runs in order.
fn merge<T: Copy>(
    a: &[T],
    b: &[T],
    order: impl Fn(&T, &T) -> Ordering,
    merged: &mut Vec<T>,
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    for count in 1_usize.. {
        let from_a = a.next_if(|x| b.peek().is_none_or(|y| order(x, y).is_le()));
        let Some(item) = from_a.or_else(|| b.next()) else { break };
        merged.push(item);
        if count.is_multiple_of(LOOK) {
            go_on()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn shuffled(len: u64) -> Vec<u64> {
        (0..len).map(|i| i.wrapping_mul(6_364_136_223_846_793_005) >> 40).collect()
    }

    #[test]
    fn it_sorts_any_length() {
        for len in [0, 1, 2, 1 << 15, (1 << 15) + 1, 3 << 15, (5 << 15) + 17] {
            let mut items = shuffled(len);
            let mut sorted = items.clone();
            sorted.sort_unstable();
            assert!(sort(&mut items, u64::cmp, &mut || Ok(())).is_ok());
            assert_eq!(items, sorted);
        }
    }

    /// However long the list, a stop is heeded after a bounded number of comparisons.
    #[test]
    fn it_stops_when_it_is_told_to() {
        let compared = std::cell::Cell::new(0_usize);
        let counted = |a: &u64, b: &u64| {
            compared.set(compared.get() + 1);
            a.cmp(b)
        };
        for asked in 0..40 {
            let mut looks = 0;
            let mut since = 0;
            let mut go_on = || {
                looks += 1;
                since = compared.get();
                if looks > asked { Err(Error::Interrupted) } else { Ok(()) }
            };
            let before = compared.get();
            let stopped = sort(&mut shuffled(20 << 15), counted, &mut go_on);
            assert_eq!(stopped, Err(Error::Interrupted));
            assert!(compared.get() - before <= (asked + 1) * LOOK * 40, "{asked} looks");
            assert_eq!(compared.get(), since, "nothing after a stop");
        }
    }
}
