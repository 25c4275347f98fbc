package guard

import (
	"errors"
	"fmt"
)

// Raft's decoder makes room for a time in msgpack as long as the message says
// it is, up to 4 GiB, before any of it has come. Raft sends none. So whoever reads
// from a peer walks over the values as they come, and stops at one.

// maxDepth is how deep values may lie in each other; raft's lie three deep.
const maxDepth = 16

var errExtension = errors.New("a value in it is none that raft sends")

// wire is what is known of a stream of values up to here. On incoming connections
// a byte that tells the kind of request is before each value, and the bytes of a
// snapshot are behind the one that announces them: an integer under the key Size.
type wire struct {
	incoming bool

	kind   byte   // of the request that is being read
	begun  bool   // the kind is known
	open   []left // arrays and maps that are not complete
	skip   uint64 // bytes of a value, or of a snapshot, that are still to come
	key    []byte // what was read of a string that may be the key Size
	isKey  bool
	size   uint64 // bytes of the snapshot that is announced
	sized  bool   // the next value is the size
	need   int    // bytes of a number that are still to come
	number uint64
	counts counted
	sign   uint64 // the bit that makes the number negative
}

// left is how many values are still to come in an array or map. In a map a key is
// next when it is even.
type left struct {
	values uint64
	isMap  bool
}

// counted is what a number says.
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
			if w.isKey {
				w.key = append(w.key, b[:n]...)
			}
			b, w.skip = b[n:], w.skip-n
			if w.skip == 0 && w.begun {
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
	w.number, w.sign = 0, 0
	w.isKey = w.kind == rpcInstallSnapshot && len(w.open) == 1 && w.open[0].isMap && w.open[0].values%2 == 0
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

// counted does what a number says that is now known.
func (w *wire) counted() error {
	values := w.number
	switch w.counts {
	case countsBytes:
		if w.isKey = w.isKey && w.number == uint64(len("Size")); w.number > 0 {
			w.skip = w.number
			return nil
		}
	case countsItself:
		if w.sized {
			w.size = 0 // the last one counts; of a negative one nothing is read
		}
		if w.sized && w.number&w.sign == 0 {
			w.size = w.number
		}
	case countsPairs, countsValues:
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

// complete ends a value, and all that it was the last of.
func (w *wire) complete() {
	w.sized = w.isKey && string(w.key) == "Size"
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
