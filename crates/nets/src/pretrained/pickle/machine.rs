//! The stack machine of pickles, as far as plain data and tensors need it.
//!
//! What a pickle makes lies in one flat list of nodes, which refer to each other by number: a pickle may refer to one
//! thing many times, even to itself. [`tree`](Machine::tree) then unfolds them. How many there may be, how deep, and
//! how many once unfolded is bounded, so a small file cannot ask for much memory, nor a large one without tensors.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;

use super::tensor::{Claims, MOST_DIMS};
use super::tree::Unfolding;
use super::{Value, refused};
use crate::Result;

/// More than any name allowed takes.
const MOST_ARGUMENTS: usize = 8;
/// Things that a pickle may make, or put aside, and that they may unfold to; a checkpoint of a thousand parameters with
/// an optimiser's state has a tenth.
pub(super) const MOST_NODES: usize = 1 << 20;

/// The names that may stand in a pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    Tensor,
    Parameter,
    Size,
    /// A class of TorchScript, whose code is not looked at.
    Module,
    /// TorchScript's lists of one type.
    List,
    Storage(DType),
}

impl Global {
    fn of(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            (module, _) if module == "__torch__" || module.starts_with("__torch__.") => Self::Module,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter") => Self::Parameter,
            ("torch", "Size") => Self::Size,
            (
                "torch.jit._pickle",
                "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist",
            ) => Self::List,
            ("torch", storage) => Self::Storage(match storage.strip_suffix("Storage")? {
                "Double" => DType::F64,
                "Float" => DType::F32,
                "Half" => DType::F16,
                "BFloat16" => DType::BF16,
                "Long" => DType::I64,
                "Int" => DType::I32,
                "Short" => DType::I16,
                "Byte" | "Bool" => DType::U8,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// The bytes of tensors, by their name in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    pub key: Arc<str>,
    pub dtype: DType,
    pub count: i64,
}

/// A number of a node.
pub(super) type Id = usize;

/// A thing that a pickle made.
#[derive(Debug)]
pub(super) enum Node {
    Leaf(Value),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A module, and the dictionary of its attributes.
    Object(Option<Id>),
    Global(Global),
    Storage(Storage),
    Tensor(Id, Claims),
}

/// A pickle that has been run.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// The heights of the stack that opcodes with a mark go down to.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Runs the pickle that begins at `at`, and returns what it made and where it ends.
    pub(super) fn run(input: &'a [u8], at: usize) -> Result<(Self, Id, usize)> {
        let mut machine =
            Self { input, at, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        loop {
            let from = machine.at;
            let made = [machine.nodes.len(), machine.stack.len(), machine.marks.len(), machine.memo.len()];
            if made.into_iter().max() > Some(MOST_NODES) {
                return Err(refused(format!("at byte {from} of the pickle, more than {MOST_NODES} things")));
            }
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    let end = machine.at;
                    return Ok((machine, root, end));
                }
                Err(why) => return Err(refused(format!("at byte {from} of the pickle, {why}"))),
            }
        }
    }

    /// Every storage that the pickle names.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// One opcode; the result, where it ends the pickle.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let op = self.byte()?;
        match op {
            b'.' => return Ok(Some(self.pop()?)),
            0x80 => self.protocol()?,
            // The length of a frame says nothing that the rest of the file does not.
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memo(op)?,
            b'c' | 0x93 => self.global(op)?,
            b'Q' => self.persistent()?,
            b'R' => self.call()?,
            0x81 => self.object()?,
            b'b' => self.attributes()?,
            b']' | b'l' | b')' | b't' | 0x85 | 0x86 | 0x87 | b'}' | b'd' => self.container(op)?,
            b'a' | b'e' | b's' | b'u' => self.fill(op)?,
            _ => {
                let leaf = self.leaf(op)?;
                self.push(Node::Leaf(leaf));
            }
        }
        Ok(None)
    }

    fn protocol(&mut self) -> Result<(), String> {
        match self.byte()? {
            0..=5 => Ok(()),
            other => Err(format!("protocol {other}; protocols 0 to 5 are read")),
        }
    }

    /// A number or text that follows its opcode.
    fn leaf(&mut self, op: u8) -> Result<Value, String> {
        Ok(match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'I' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => Value::Int(number(text)?),
            },
            b'L' => Value::Int(number(self.line()?.trim_end_matches('L'))?),
            0x8a => {
                let length = self.byte()?.into();
                self.long(length)?
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?).into();
                self.long(length)?
            }
            b'F' => Value::Float(number(self.line()?)?),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'U' | 0x8c | b'C' => {
                let length = self.byte()?.into();
                self.text(op == b'C', length)?
            }
            b'T' | b'X' | b'B' => {
                let length = u32::from_le_bytes(self.array()?).into();
                self.text(op == b'B', length)?
            }
            0x8d | 0x8e => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(op == 0x8e, length)?
            }
            other => return Err(format!("opcode 0x{other:02x}, which no plain data needs")),
        })
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, length: u64) -> Result<Value, String> {
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        match wide.get_mut(..bytes.len()) {
            Some(low) => low.copy_from_slice(bytes),
            None => return Err(format!("an integer of {} bytes; 8 are read", bytes.len())),
        }
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, raw: bool, length: u64) -> Result<Value, String> {
        let bytes = self.take(length)?;
        if raw {
            return Ok(Value::Bytes(bytes.into()));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| format!("a text that is none: {error}"))?;
        Ok(Value::Text(text.into()))
    }

    /// Puts the top of the stack aside under a number, or gets it back.
    fn memo(&mut self, op: u8) -> Result<(), String> {
        let key = match op {
            b'p' | b'g' => number(self.line()?)?,
            b'q' | b'h' => self.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?).into(),
            _ => self.memo.len() as u64,
        };
        if matches!(op, b'g' | b'h' | b'j') {
            let id = *self.memo.get(&key).ok_or_else(|| format!("number {key} was never put aside"))?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    /// A name, which must be among those allowed.
    fn global(&mut self, op: u8) -> Result<(), String> {
        let (module, name) = if op == b'c' {
            (self.line()?.to_owned(), self.line()?.to_owned())
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            (self.text_of(module)?.to_string(), self.text_of(name)?.to_string())
        };
        let known = Global::of(&module, &name).ok_or_else(|| {
            format!("the name {module}.{name}, which is no tensor and no plain data; it was not looked up")
        })?;
        self.push(Node::Global(known));
        Ok(())
    }

    /// `('storage', type, key, device, count)`, and in old files a view of it, which is none.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let wrong = || "a reference that is not to a storage of a tensor".to_owned();
        let Node::Tuple(items) = &self.nodes[id] else { return Err(wrong()) };
        let (&[tag, kind, key, _, count], rest) = items.split_first_chunk().ok_or_else(wrong)?;
        let view = rest.iter().any(|&id| !matches!(self.nodes[id], Node::Leaf(Value::None)));
        let (&Node::Global(Global::Storage(dtype)), "storage", false) =
            (&self.nodes[kind], &*self.text_of(tag)?, view)
        else {
            return Err(wrong());
        };
        let (key, count) = (self.text_of(key)?, self.int_of(count)?);
        self.push(Node::Storage(Storage { key, dtype, count }));
        Ok(())
    }

    /// Makes what the names allowed make; nothing is called.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        let (Node::Tuple(arguments), &Node::Global(name)) = (&self.nodes[arguments], &self.nodes[name])
        else {
            return Err("a call of what is no name".into());
        };
        let arguments: Vec<Id> = arguments.iter().take(MOST_ARGUMENTS).copied().collect();
        let wrong = || format!("other arguments than {name:?} has");
        match (name, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Global::Size, &[id]) if matches!(self.nodes[id], Node::Tuple(_)) => self.stack.push(id),
            (Global::List, &[id]) if matches!(self.nodes[id], Node::List(_)) => self.stack.push(id),
            (Global::Parameter, &[id, ..]) if matches!(self.nodes[id], Node::Tensor(..)) => {
                self.stack.push(id)
            }
            (Global::Tensor, &[storage, offset, shape, strides, ..])
                if matches!(self.nodes[storage], Node::Storage(_)) =>
            {
                let (shape, strides) = (self.ints_of(shape)?, self.ints_of(strides)?);
                let claims = Claims { offset: self.int_of(offset)?, shape, strides };
                self.push(Node::Tensor(storage, claims));
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// A module of TorchScript, without attributes yet.
    fn object(&mut self) -> Result<(), String> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        match (&self.nodes[arguments], &self.nodes[name]) {
            (Node::Tuple(none), Node::Global(Global::Module)) if none.is_empty() => {
                self.push(Node::Object(None));
                Ok(())
            }
            _ => Err("an object of another kind than TorchScript's modules".into()),
        }
    }

    /// An object's attributes: those of an ordered dictionary are of no interest.
    fn attributes(&mut self) -> Result<(), String> {
        let (state, target) = (self.pop()?, self.top()?);
        let given = matches!(self.nodes[state], Node::Dict(_));
        match &mut self.nodes[target] {
            // Remembered, not copied: many objects may be given the same.
            Node::Object(attributes @ None) if given => *attributes = Some(state),
            Node::Dict(_) => {}
            _ => return Err("attributes are set on what has none".into()),
        }
        Ok(())
    }

    fn container(&mut self, op: u8) -> Result<(), String> {
        let node = match op {
            b']' => Node::List(Vec::new()),
            b')' => Node::Tuple(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            b'l' => Node::List(self.pop_mark()?),
            b't' => Node::Tuple(self.pop_mark()?),
            b'd' => Node::Dict(pairs(&self.pop_mark()?)?),
            _ => {
                let count = usize::from(op - 0x84);
                let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                Node::Tuple(items)
            }
        };
        self.push(node);
        Ok(())
    }

    /// Adds to the list or dictionary on the top of the stack.
    fn fill(&mut self, op: u8) -> Result<(), String> {
        let items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.pop_mark()?,
        };
        let target = self.top()?;
        match (&mut self.nodes[target], op) {
            (Node::List(list), b'a' | b'e') => list.extend(items),
            (Node::Dict(dict), b's' | b'u') => dict.extend(pairs(&items)?),
            _ => return Err("something is added to what holds nothing".into()),
        }
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn top(&self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > floor);
        top.copied().ok_or_else(|| "the stack is empty".into())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("there is no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn text_of(&self, id: Id) -> Result<Arc<str>, String> {
        match &self.nodes[id] {
            Node::Leaf(Value::Text(text)) => Ok(text.clone()),
            _ => Err("a str was expected".into()),
        }
    }

    fn int_of(&self, id: Id) -> Result<i64, String> {
        match self.nodes[id] {
            Node::Leaf(Value::Int(i)) => Ok(i),
            _ => Err("an int was expected".into()),
        }
    }

    fn ints_of(&self, id: Id) -> Result<Vec<i64>, String> {
        match &self.nodes[id] {
            // One tuple may stand for many tensors: what is copied for each must be short.
            Node::Tuple(items) if items.len() <= MOST_DIMS => {
                items.iter().map(|&id| self.int_of(id)).collect()
            }
            _ => Err(format!("a tuple of {MOST_DIMS} ints at most was expected")),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let left = self.input.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(length).ok().and_then(|length| left.get(..length));
        let taken =
            taken.ok_or_else(|| format!("{length} bytes are announced where {} are left", left.len()))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| "too few bytes".into())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let left = self.input.get(self.at..).unwrap_or_default();
        let end = left.iter().position(|&byte| byte == b'\n').ok_or("a line without an end")?;
        let line = self.take(end as u64)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|error| format!("a line that is no text: {error}"))
    }

    /// Unfolds what a node holds; `locate` finds the bytes of a storage in `file`.
    pub(super) fn tree(
        &self,
        root: Id,
        file: &Arc<Vec<u8>>,
        locate: &mut dyn FnMut(&Storage) -> Result<Range<usize>>,
    ) -> Result<Value> {
        Unfolding { nodes: &self.nodes, file, locate, budget: MOST_NODES }.value(root, 0)
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a key without a value".into())
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.trim().parse().map_err(|_| format!("{text:?}, where a number was expected"))
}
