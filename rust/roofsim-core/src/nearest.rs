//! Names near what somebody typed.

/// The known names nearest to a text, nearest first, at most so many.
pub(crate) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = known.into_iter().map(|name| (edit_distance(text, name), name)).collect();
    near.sort_unstable();
    near.into_iter().take(most).map(|(_, name)| name).collect()
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for ((to, corner_above), left_at) in b.iter().zip(row.windows(2)).zip(0..) {
            let [corner, above] = corner_above else { continue };
            let left: usize = next.get(left_at).copied().unwrap_or(usize::MAX - 1);
            let swap = corner + usize::from(from != *to);
            next.push(swap.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first() {
        assert_eq!(nearest("tme_s", ["bound", "time_s", "mfu"], 2), ["time_s", "mfu"]);
    }

    #[test]
    fn edit_distance_counts_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("LlamaForCausalLM", "LlamaForCausalLM"), 0);
    }
}
