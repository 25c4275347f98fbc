package network

import (
	"cmp"
	"errors"
	"fmt"
)

// Raft's msgpack decoder allocates what a message announces, before any of it has arrived.
// So the values from a peer are parsed here as they arrive:
//
//   - A time takes its announced length, up to 4 GiB. Raft sends none, and the connection
//     ends at one.
//   - An array or map takes its announced number of elements, and each element more than the
//     byte that an empty one has on the wire: 31 MB became 2.9 GB. So arrays and maps may be
//     no longer than what raft sends.
const (
	// maxDepth bounds the nesting of values; raft's are three deep.
	maxDepth = 16
	// maxPairs bounds a map. Raft's structs have up to fourteen fields.
	maxPairs = 24
	// maxServers bounds the servers of a configuration.
	maxServers = 4096
	// maxBytes bounds a string; the longest is the data of an entry.
	maxBytes = MaxEntryBytes
)

const (
	// MaxEntries is how many log entries a request may hold. NewRaft configures raft to send
	// no more. It is a quarter of raft's default, because there has to be memory for as many
	// of the longest.
	MaxEntries = 16
	// MaxEntryBytes is how long the data of a log entry may be: 1.25 MiB. A longer one
	// cannot be sent to another member.
	MaxEntryBytes = 1280 << 10
)

var errExtension = errors.New("raft sends no values of this kind")

// wire is the state of the parser of a stream of values. On incoming connections each value
// follows a byte with the kind of request, and the bytes of a snapshot follow the value that
// announces them: an integer under the key Size. Under the key ID a request names the member
// that it is from.
type wire struct {
	incoming bool
	values   uint64 // the longest array; zero is MaxEntries
	from     string // the member that requests have to be from; empty: any

	kind   byte   // of the request that is being read
	begun  bool   // the kind is known
	open   []left // arrays and maps that are not complete
	skip   uint64 // missing bytes of a value, or of a snapshot
	key    []byte // what was read of a string that may be a key, Size or ID, or the ID itself
	isKey  bool
	isID   bool   // the next value, or the one that is being read, is the ID
	size   uint64 // bytes of the snapshot that is announced
	sized  bool   // the next value is the size
	need   int    // missing bytes of a number
	number uint64
	counts counted
	sign   uint64 // the bit that makes the number negative
}

// left is how many values of an array or map are missing. In a map a key is next when the
// number is even.
type left struct {
	values uint64
	isMap  bool
}

// counted is what a number counts.
type counted uint8

const (
	countsBytes counted = iota // that follow
	countsValues
	countsPairs
	countsItself
)

// read takes the next bytes of the stream.
func (w *wire) read(b []byte) error {
	for len(b) > 0 {
		switch {
		case w.skip > 0:
			n := min(w.skip, uint64(len(b)))
			if w.isKey || w.isID {
				w.key = append(w.key, b[:n]...)
			}
			b, w.skip = b[n:], w.skip-n
			if w.skip == 0 && w.begun {
				if err := w.checkID(); err != nil {
					return err
				}
				w.complete()
			}
			continue
		case w.need > 0:
			w.number = w.number<<8 | uint64(b[0])
			if w.need--; w.need == 0 {
				if err := w.counted(); err != nil {
					return err
				}
			}
		case w.incoming && !w.begun:
			w.kind, w.begun, w.size = b[0], true, 0
		default:
			w.begun = true
			if err := w.begin(b[0]); err != nil {
				return err
			}
		}
		b = b[1:]
	}
	return nil
}

// begin takes the first byte of a value.
func (w *wire) begin(t byte) error {
	isMap := t >= 0x80 && t <= 0x8f || t == 0xde || t == 0xdf
	if w.incoming && len(w.open) == 0 && !isMap {
		return errors.New("it is no raft request")
	}
	if isNumber := t <= 0x7f || t >= 0xe0 || t >= 0xcc && t <= 0xd3; w.sized && !isNumber {
		return errors.New("the size of its snapshot is no number")
	}
	if isBytes := t >= 0xa0 && t <= 0xbf || t >= 0xc4 && t <= 0xc6 || t >= 0xd9 && t <= 0xdb; w.isID && !isBytes {
		return errOtherSender
	}
	w.number, w.sign = 0, 0
	w.isKey = w.incoming && len(w.open) == 1 && w.open[0].isMap && w.open[0].values%2 == 0
	w.key = w.key[:0]
	switch {
	case t <= 0x7f || t >= 0xe0:
		w.number, w.counts, w.sign = uint64(t), countsItself, 0x80
		return w.counted()
	case t <= 0x8f:
		w.number, w.counts = uint64(t&0x0f), countsPairs
		return w.counted()
	case t <= 0x9f:
		w.number, w.counts = uint64(t&0x0f), countsValues
		return w.counted()
	case t <= 0xbf:
		w.number, w.counts = uint64(t&0x1f), countsBytes
		return w.counted()
	case t == 0xc0 || t == 0xc2 || t == 0xc3:
		w.complete()
	case t >= 0xc4 && t <= 0xc6: // bytes
		w.need, w.counts = 1<<(t-0xc4), countsBytes
	case t == 0xca || t == 0xcb: // floats
		w.skip = 4 << (t - 0xca)
	case t >= 0xcc && t <= 0xcf:
		w.need, w.counts = 1<<(t-0xcc), countsItself
	case t >= 0xd0 && t <= 0xd3:
		w.need, w.counts = 1<<(t-0xd0), countsItself
		w.sign = 1 << (8*w.need - 1)
	case t >= 0xd9 && t <= 0xdb: // strings
		w.need, w.counts = 1<<(t-0xd9), countsBytes
	case t == 0xdc || t == 0xdd:
		w.need, w.counts = 2<<(t-0xdc), countsValues
	case isMap:
		w.need, w.counts = 2<<(t-0xde), countsPairs
	default:
		return errExtension
	}
	return nil
}

// counted uses a number that is complete.
func (w *wire) counted() error {
	values := w.number
	switch w.counts {
	case countsBytes:
		if w.number > maxBytes {
			return fmt.Errorf("%w: %d bytes in one, at most %d are taken", errTooLong, w.number, maxBytes)
		}
		w.isKey = w.isKey && (w.number == uint64(len("Size")) || w.number == uint64(len("ID")))
		if w.isID && w.number != uint64(len(w.from)) {
			return errOtherSender // without reading it
		}
		if w.number > 0 {
			w.skip = w.number
			return nil
		}
	case countsItself:
		if w.sized {
			w.size = 0 // the last Size counts; a negative one announces nothing
		}
		if w.sized && w.number&w.sign == 0 {
			w.size = w.number
		}
	case countsPairs, countsValues:
		if err := w.checkLength(); err != nil {
			return err
		}
		if w.counts == countsPairs {
			values *= 2
		}
		if len(w.open) == maxDepth {
			return fmt.Errorf("values lie more than %d deep", maxDepth)
		}
		if values > 0 {
			w.open = append(w.open, left{values, w.counts == countsPairs})
			w.isKey, w.sized = false, false
			return nil
		}
	}
	w.complete()
	return nil
}

// errTooLong is the error for a value that is longer than raft's.
var errTooLong = errors.New("a value in it is longer than what raft sends")

// checkLength checks the length of an array or a map.
func (w *wire) checkLength() error {
	most := cmp.Or(w.values, MaxEntries)
	if w.counts == countsPairs {
		most = maxPairs
	}
	if w.number > most {
		return fmt.Errorf("%w: %d elements, at most %d are taken", errTooLong, w.number, most)
	}
	return nil
}

// errOtherSender is the error for a request in the name of another member than the one that
// has dialled.
var errOtherSender = errors.New("it is in the name of another member than the one that has dialled")

// checkID checks the ID of a request, if that was just read. Raft attributes requests to
// members by this ID.
func (w *wire) checkID() error {
	if w.isID && string(w.key) != w.from {
		return errOtherSender
	}
	return nil
}

// complete ends a value, and the arrays and maps whose last value it was.
func (w *wire) complete() {
	w.sized = w.isKey && w.kind == rpcInstallSnapshot && string(w.key) == "Size"
	w.isID = w.isKey && w.from != "" && string(w.key) == "ID"
	w.isKey = false
	for n := len(w.open); n > 0; n = len(w.open) {
		if w.open[n-1].values--; w.open[n-1].values > 0 {
			return
		}
		w.open = w.open[:n-1]
	}
	w.begun = false
	if w.kind == rpcInstallSnapshot {
		w.skip = w.size
	}
}
