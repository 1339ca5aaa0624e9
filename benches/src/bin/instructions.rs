//! `instructions CASE ISA TIMES`: runs one case so many times on one thread, for an instruction counter to watch.

use roofsim_bench::{Columns, MODELS, best, categorical, front, space};
use roofsim_core::error::{Error, Result};
use roofsim_core::sweep::{Isa, Runner};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (case, isa) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let times: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let isa = Isa::available().into_iter().find(|i| i.name() == isa).unwrap_or_else(Isa::detect);
    let runner = Runner { num_threads: 1, isa };
    let (k, space) = match case.as_str() {
        "best" | "front" | "columns" => (1, space(&MODELS, 256, 2048)?),
        "top-100" => (100, space(&MODELS, 256, 2048)?),
        "llama" => (1, space(&MODELS[..1], 1024, 32768)?),
        "moe" => (1, space(&MODELS[1..2], 1024, 32768)?),
        "mla" => (1, space(&MODELS[2..], 1024, 32768)?),
        "categorical" => (1, categorical(256, 64)?),
        _ => return Err(Error::spec("case", case, "must be best, top-100, front, columns or categorical")),
    };
    let mut columns = if case == "columns" { Some(Columns::of(&space)?) } else { None };
    let start = std::time::Instant::now();
    for _ in 0..times {
        match (case.as_str(), &mut columns) {
            (_, Some(columns)) => columns.fill(&space, runner)?,
            ("front", _) => drop(front(&space, runner)?),
            _ => drop(best(&space, runner, k)?),
        }
    }
    let rows = space.num_configurations().unwrap_or(0) as f64 * times as f64;
    eprintln!("{:.3e}/s", rows / start.elapsed().as_secs_f64());
    println!("{rows}");
    Ok(())
}
