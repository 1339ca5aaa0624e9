//! Columns as Arrow: the C stream interface that polars, pandas, DuckDB and pyarrow read.
//!
//! Numbers are shared, not copied. Names are dictionaries with 32-bit signed keys, which every reader takes.

#![expect(unsafe_code, reason = "Arrow reads the memory of NumPy arrays that it keeps alive")]

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, Weak};

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::types::{Float64Type, Int32Type, UInt64Type};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, DictionaryArray, PrimitiveArray, RecordBatch, RecordBatchIterator,
    RecordBatchReader, StringArray,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, ScalarBuffer, ToByteSlice};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use numpy::{Element, PyArray1, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3::wrap_pyfunction;
use roofsim_core::error::Error;
use roofsim_core::sweep::{Batches, Column, ColumnKind, Selection, Values};

use crate::arguments::shown;
use crate::batches::{ROW, Wanted};
use crate::error::spec;

/// A stream in the capsule that the Arrow PyCapsule interface asks for; dropping it unread releases the stream.
pub(crate) fn capsule(py: Python<'_>, reader: Box<dyn RecordBatchReader + Send>) -> PyResult<Bound<'_, PyCapsule>> {
    PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(reader), c"arrow_array_stream")
}

fn to_python(error: ArrowError) -> PyErr {
    spec("columns", error, "cannot be an Arrow stream")
}

/// Names with keys into them.
fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn dictionary(keys: Buffer, nulls: Option<NullBuffer>, names: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let keys = PrimitiveArray::<Int32Type>::try_new(ScalarBuffer::from(keys), nulls)?;
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::clone(names))?))
}

fn primitive<T: ArrowPrimitiveType>(values: Buffer, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls)?))
}

fn flags(values: &[bool], nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let bits = BooleanBuffer::collect_bool(values.len(), |at| values.get(at).copied().unwrap_or(false));
    if let Some(nulls) = &nulls
        && nulls.len() != values.len()
    {
        return Err(ArrowError::InvalidArgumentError("flags and nulls differ in length".to_owned()));
    }
    Ok(Arc::new(BooleanArray::new(bits, nulls)))
}

/// Nulls where a flag is true; most batches have none, which is seen faster than bits are gathered.
fn nulls_of(null: &[bool]) -> Option<NullBuffer> {
    let any = null.iter().fold(false, |any, &null| any | null);
    if any { nulls(null.len(), |at| null.get(at).copied().unwrap_or(false)) } else { None }
}

/// Nulls where a number is NaN.
fn nulls_of_floats(values: &[f64]) -> Option<NullBuffer> {
    let any = values.iter().fold(false, |any, x| any | x.is_nan());
    if any { nulls(values.len(), |at| values.get(at).is_none_or(|x| x.is_nan())) } else { None }
}

/// Nulls where `null` is true; `None` where it never is.
fn nulls(len: usize, null: impl Fn(usize) -> bool) -> Option<NullBuffer> {
    let nulls = NullBuffer::new(BooleanBuffer::collect_bool(len, |at| !null(at)));
    (nulls.null_count() > 0).then_some(nulls)
}

// --- batches of a sweep ------------------------------------------------------------------------------------------

/// Memory of batches that their readers are done with: the system takes longer to hand out fresh memory than the sweep
/// takes to fill it.
type Pool<T> = Arc<Mutex<Vec<Vec<T>>>>;

/// Batches whose memory is kept for the next ones.
const MAX_KEPT: usize = 4;

/// Values of a batch, whose memory goes back to the pool for as long as that one lasts.
struct Lent<T> {
    values: Vec<T>,
    home: Weak<Mutex<Vec<Vec<T>>>>,
}

impl<T: ArrowNativeType> AsRef<[u8]> for Lent<T> {
    fn as_ref(&self) -> &[u8] {
        self.values.to_byte_slice()
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        if let Ok(mut kept) = home.lock()
            && kept.len() < MAX_KEPT
        {
            kept.push(std::mem::take(&mut self.values));
        }
    }
}

/// So many values to write over.
fn take<T: Copy + Default>(pool: &Pool<T>, rows: usize) -> Vec<T> {
    let mut values = pool.lock().ok().and_then(|mut kept| kept.pop()).unwrap_or_default();
    if values.len() < rows {
        values = vec![T::default(); rows];
    }
    values.truncate(rows);
    values
}

/// Values as a buffer that gives its memory back.
fn lend<T: ArrowNativeType>(pool: &Pool<T>, values: Vec<T>) -> Buffer {
    Buffer::from(bytes::Bytes::from_owner(Lent { values, home: Arc::downgrade(pool) }))
}

/// Memory for the columns of batches.
#[derive(Default)]
struct Memory {
    floats: Pool<f64>,
    counts: Pool<u64>,
    codes: Pool<u32>,
}

/// Evaluates a batch each time the reader of the stream asks for one.
///
/// It never takes the GIL: a reader may wait for it on another thread while holding the GIL.
pub(crate) struct BatchReader {
    batches: Batches,
    wanted: Wanted,
    schema: SchemaRef,
    names: Vec<ArrayRef>,
    memory: Memory,
}

impl BatchReader {
    pub(crate) fn new(batches: Batches, wanted: Wanted) -> Self {
        let field = |place: &Option<usize>| {
            let Some(column) = place.and_then(|at| wanted.columns.get(at)) else {
                return Field::new(ROW, DataType::UInt64, false);
            };
            let kind = match column.kind() {
                ColumnKind::Float => DataType::Float64,
                ColumnKind::Count => DataType::UInt64,
                ColumnKind::Flag => DataType::Boolean,
                ColumnKind::Code => dictionary_type(),
            };
            Field::new(column.name(), kind, !column.is_always_known())
        };
        let schema = Arc::new(Schema::new(wanted.order.iter().map(field).collect::<Vec<_>>()));
        let names = |column: &Column| -> ArrayRef { Arc::new(StringArray::from(batches.space().names(*column))) };
        let names = wanted.columns.iter().map(names).collect();
        Self { batches, wanted, schema, names, memory: Memory::default() }
    }

    /// The next rows where all of them pass, written over memory that an earlier batch had.
    fn whole(&mut self, rows: Range<u128>) -> Result<Selection, Error> {
        let num_rows = usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX);
        let memory = |column: &Column| match column.kind() {
            ColumnKind::Float => Values::Float(take(&self.memory.floats, num_rows)),
            ColumnKind::Count => Values::Count(take(&self.memory.counts, num_rows)),
            ColumnKind::Flag => Values::Flag(vec![false; num_rows]),
            ColumnKind::Code => Values::Code(take(&self.memory.codes, num_rows)),
        };
        let mut found = Selection {
            rows: Vec::new(),
            null: vec![false; num_rows],
            columns: self.wanted.columns.iter().map(memory).collect(),
        };
        let outputs = found.columns.iter_mut().map(Values::output).collect();
        self.batches.fill(outputs, &mut found.null, &mut |_, _| ControlFlow::Continue(()))?;
        if self.wanted.order.contains(&None) {
            // Row numbers of batches are below 2^64.
            found.rows = take(&self.memory.counts, num_rows);
            let first = u64::try_from(rows.start).unwrap_or(u64::MAX);
            found.rows.iter_mut().zip(first..).for_each(|(row, number)| *row = number);
        }
        Ok(found)
    }

    fn batch(&self, found: Selection) -> Result<RecordBatch, ArrowError> {
        let unknown = nulls_of(&found.null);
        let mut columns = Vec::new();
        for ((values, column), names) in found.columns.into_iter().zip(&self.wanted.columns).zip(&self.names) {
            let nulls_of_row = if column.is_always_known() { None } else { unknown.clone() };
            columns.push(match values {
                // NaN stands for null: where no engine would run the row, and for an unknown price.
                Values::Float(x) => {
                    let nulls = nulls_of_floats(&x);
                    primitive::<Float64Type>(lend(&self.memory.floats, x), nulls)?
                }
                Values::Count(x) => primitive::<UInt64Type>(lend(&self.memory.counts, x), nulls_of_row)?,
                Values::Flag(x) => flags(&x, nulls_of_row)?,
                Values::Code(x) => dictionary(lend(&self.memory.codes, x), nulls_of_row, names)?,
            });
        }
        let pick = |place: &Option<usize>| place.and_then(|at| columns.get(at)).map(Arc::clone);
        let row = if self.wanted.order.contains(&None) {
            Some(primitive::<UInt64Type>(lend(&self.memory.counts, found.rows), None)?)
        } else {
            None
        };
        let columns = self.wanted.order.iter().filter_map(|place| pick(place).or_else(|| row.clone())).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl Iterator for BatchReader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.batches.next_rows() {
            Some(rows) if rows.is_empty() => return None,
            Some(rows) => self.whole(rows).map(Some),
            None => self.batches.next(&mut |_, _| ControlFlow::Continue(())),
        };
        match found {
            Ok(found) => found.map(|found| self.batch(found)),
            Err(error) => Some(Err(ArrowError::ExternalError(Box::new(error)))),
        }
    }
}

impl RecordBatchReader for BatchReader {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

// --- columns that are in NumPy arrays already --------------------------------------------------------------------

/// The memory of a NumPy array, kept alive for whoever reads it.
struct Shared<T: 'static> {
    _array: Py<PyArray1<T>>,
    start: *const u8,
    num_bytes: usize,
}

// SAFETY: the pointer is to memory that the array owns; nothing is done with it but reading.
unsafe impl<T: Element> Send for Shared<T> {}

impl<T: Element> AsRef<[u8]> for Shared<T> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `num_bytes` are those of a contiguous array that `_array` keeps alive, and NumPy does not
        // move the memory of an array that something else refers to.
        unsafe { std::slice::from_raw_parts(self.start, self.num_bytes) }
    }
}

/// An array's memory without a copy.
fn shared<T: Element + 'static>(array: &Bound<'_, PyArray1<T>>) -> PyResult<Buffer> {
    if !array.is_c_contiguous() {
        return Err(spec("columns", "strided", "only contiguous arrays can be an Arrow stream"));
    }
    let num_bytes = array.len() * size_of::<T>();
    if num_bytes == 0 {
        return Ok(Buffer::from_vec(Vec::<u64>::new()));
    }
    let shared = Shared { start: array.data().cast_const().cast::<u8>(), num_bytes, _array: array.clone().unbind() };
    Ok(Buffer::from(bytes::Bytes::from_owner(shared)))
}

/// Name, values, the names behind codes, where the column is null, and whether it can be.
type Named<'py> = (String, Bound<'py, PyAny>, Option<Vec<String>>, Option<PyReadonlyArray1<'py, bool>>, bool);

fn array(values: &Bound<'_, PyAny>, names: Option<Vec<String>>, nulls: Option<NullBuffer>) -> PyResult<ArrayRef> {
    let found = if let Some(names) = names {
        let keys =
            values.cast::<PyArray1<u32>>().map_err(|_| spec("columns", shown(values), "codes must be uint32"))?;
        let names: ArrayRef = Arc::new(StringArray::from(names));
        dictionary(shared(keys)?, nulls, &names)
    } else if let Ok(values) = values.cast::<PyArray1<f64>>() {
        primitive::<Float64Type>(shared(values)?, nulls)
    } else if let Ok(values) = values.cast::<PyArray1<u64>>() {
        primitive::<UInt64Type>(shared(values)?, nulls)
    } else if let Ok(values) = values.extract::<PyReadonlyArray1<'_, bool>>() {
        flags(values.as_slice()?, nulls)
    } else {
        return Err(spec("columns", shown(values), "must be float64, uint64, bool or uint32"));
    };
    found.map_err(to_python)
}

/// Columns of equal length as an Arrow stream of at most `batch_rows` rows a batch.
#[pyfunction]
fn _columns_stream<'py>(
    py: Python<'py>,
    columns: Vec<Named<'py>>,
    batch_rows: usize,
) -> PyResult<Bound<'py, PyCapsule>> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (name, values, names, null, nullable) in columns {
        let null = match &null {
            None => None,
            Some(null) => nulls_of(null.as_slice()?),
        };
        let array = array(&values, names, null)?;
        fields.push(Field::new(name, arrow_array::Array::data_type(&array).clone(), nullable));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let whole = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(to_python)?;
    let (rows, step) = (whole.num_rows(), batch_rows.max(1));
    let batches = (0..rows).step_by(step).map(move |start| Ok(whole.slice(start, step.min(rows - start))));
    capsule(py, Box::new(RecordBatchIterator::new(batches, schema)))
}

/// Adds the function to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_columns_stream, module)?)
}
