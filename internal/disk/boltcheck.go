package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// checkBolt reads a bbolt file before bbolt does. bbolt maps the file and walks
// it with unchecked pointers, in part on a goroutine of its own, so a damaged
// page ends the process. It also falls back silently to the last transaction but
// one if a meta page is damaged, which would undo a vote. (A torn write cannot
// look like that: the meta data lie within one sector.)
//
// A file that is missing or empty is fine: bbolt will initialise it.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	c := &boltChecker{f: f, size: info.Size(), seen: map[uint64]bool{}}
	root, freelist, err := c.metas()
	if err != nil {
		return err
	}
	if freelist != noFreelist {
		if err := c.freelist(freelist); err != nil {
			return err
		}
	}
	return c.tree(root, nil, nil, 0)
}

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)

	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltMeta     = 0x04
	boltFreelist = 0x10
	boltBucket   = 0x01 // leaf element flag

	boltHeader   = 16 // page header; also the size of an element and of a bucket
	boltMaxDepth = 64
)

type boltChecker struct {
	f        io.ReaderAt
	size     int64
	pageSize int
	pages    uint64          // pages below the high-water mark
	seen     map[uint64]bool // pages that something points to
}

type boltPage struct {
	id       uint64
	flags    uint16
	count    int
	overflow uint32
	b        []byte // with the header and the overflow pages
}

// metas checks both meta pages and returns what the newer one says.
func (c *boltChecker) metas() (root, freelist uint64, err error) {
	var head [boltHeader + 64]byte
	if _, err := c.f.ReadAt(head[:], 0); err != nil {
		return 0, 0, fmt.Errorf("read meta page 0: %w", err)
	}
	c.pageSize = int(binary.NativeEndian.Uint32(head[boltHeader+8:]))
	if c.pageSize < 512 || c.pageSize > 1<<16 || c.pageSize&(c.pageSize-1) != 0 {
		return 0, 0, fmt.Errorf("meta page 0: page size %d", c.pageSize)
	}
	var newest uint64
	for i := range uint64(2) {
		if _, err := c.f.ReadAt(head[:], int64(i)*int64(c.pageSize)); err != nil {
			return 0, 0, fmt.Errorf("read meta page %d: %w", i, err)
		}
		m := head[boltHeader:]
		sum := fnv.New64a()
		sum.Write(m[:56])
		if binary.NativeEndian.Uint64(head[:]) != i || binary.NativeEndian.Uint16(head[8:]) != boltMeta ||
			binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint32(m[4:]) != boltVersion ||
			binary.NativeEndian.Uint64(m[56:]) != sum.Sum64() {
			return 0, 0, fmt.Errorf("meta page %d is damaged", i)
		}
		if txid := binary.NativeEndian.Uint64(m[48:]); i == 0 || txid > newest {
			newest = txid
			root, freelist = binary.NativeEndian.Uint64(m[16:]), binary.NativeEndian.Uint64(m[32:])
			c.pages = binary.NativeEndian.Uint64(m[40:])
		}
	}
	return root, freelist, nil
}

// page reads a page that something points to.
func (c *boltChecker) page(id uint64) (boltPage, error) {
	if id < 2 || id >= c.pages {
		return boltPage{}, fmt.Errorf("page %d is not among the %d pages of the file", id, c.pages)
	}
	var head [boltHeader]byte
	off := int64(id) * int64(c.pageSize)
	if _, err := c.f.ReadAt(head[:], off); err != nil {
		return boltPage{}, fmt.Errorf("read page %d: %w", id, err)
	}
	p := boltPage{
		id:       binary.NativeEndian.Uint64(head[:]),
		flags:    binary.NativeEndian.Uint16(head[8:]),
		count:    int(binary.NativeEndian.Uint16(head[10:])),
		overflow: binary.NativeEndian.Uint32(head[12:]),
	}
	if p.id != id || id+uint64(p.overflow) >= c.pages {
		return boltPage{}, fmt.Errorf("page %d: header says page %d and %d more", id, p.id, p.overflow)
	}
	for i := id; i <= id+uint64(p.overflow); i++ {
		if c.seen[i] {
			return boltPage{}, fmt.Errorf("page %d is used twice", i)
		}
		c.seen[i] = true
	}
	n := int64(c.pageSize) * (1 + int64(p.overflow))
	if off+n > c.size {
		return boltPage{}, fmt.Errorf("page %d lies beyond the end of the file", id)
	}
	p.b = make([]byte, n)
	if _, err := c.f.ReadAt(p.b, off); err != nil {
		return boltPage{}, fmt.Errorf("read page %d: %w", id, err)
	}
	return p, nil
}

func (c *boltChecker) freelist(id uint64) error {
	p, err := c.page(id)
	if err != nil {
		return err
	}
	if p.flags != boltFreelist {
		return fmt.Errorf("page %d: freelist has type %#x", id, p.flags)
	}
	ids, count := p.b[boltHeader:], uint64(p.count)
	if count == 0xFFFF {
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return fmt.Errorf("page %d: freelist of %d does not fit", id, count)
	}
	for i := range count {
		free := binary.NativeEndian.Uint64(ids[8*i:])
		if free < 2 || free >= c.pages || c.seen[free] {
			return fmt.Errorf("page %d: freelist names page %d", id, free)
		}
		c.seen[free] = true
	}
	return nil
}

// tree checks the subtree at page id: its keys rise, from at least low to below
// high (nil: no bound).
func (c *boltChecker) tree(id uint64, low, high []byte, depth int) error {
	if depth > boltMaxDepth {
		return fmt.Errorf("page %d: tree is too deep", id)
	}
	p, err := c.page(id)
	if err != nil {
		return err
	}
	return c.node(p, low, high, depth)
}

func (c *boltChecker) node(p boltPage, low, high []byte, depth int) error {
	if p.flags != boltBranch && p.flags != boltLeaf {
		return fmt.Errorf("page %d has type %#x", p.id, p.flags)
	}
	if p.flags == boltBranch && p.count == 0 {
		return fmt.Errorf("page %d: branch without children", p.id)
	}
	var prev []byte
	for i := range p.count {
		key, val, e, err := p.element(i)
		if err != nil {
			return err
		}
		if low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 ||
			i > 0 && bytes.Compare(key, prev) <= 0 {
			return fmt.Errorf("page %d: key %d is out of order", p.id, i)
		}
		prev = key
		switch {
		case p.flags == boltBranch:
			next := high
			if i+1 < p.count {
				if next, _, _, err = p.element(i + 1); err != nil {
					return err
				}
			}
			err = c.tree(e.child, key, next, depth+1)
		case e.flags&boltBucket != 0:
			err = c.bucket(p.id, val, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a nested bucket: a tree of its own, or one leaf inline.
func (c *boltChecker) bucket(id uint64, val []byte, depth int) error {
	if len(val) < boltHeader {
		return fmt.Errorf("page %d: bucket header is cut", id)
	}
	if root := binary.NativeEndian.Uint64(val); root != 0 {
		return c.tree(root, nil, nil, depth+1)
	}
	b := val[boltHeader:]
	if len(b) < boltHeader {
		return fmt.Errorf("page %d: inline bucket is cut", id)
	}
	inline := boltPage{id: id, flags: binary.NativeEndian.Uint16(b[8:]), count: int(binary.NativeEndian.Uint16(b[10:])), b: b}
	if inline.flags != boltLeaf {
		return fmt.Errorf("page %d: inline bucket has type %#x", id, inline.flags)
	}
	return c.node(inline, nil, nil, depth+1)
}

type boltElement struct {
	flags uint32
	child uint64
}

// element returns key, value and header of the i-th element. A position counts
// from the element's own header.
func (p boltPage) element(i int) (key, val []byte, e boltElement, err error) {
	at := boltHeader * (i + 1)
	if at+boltHeader > len(p.b) {
		return nil, nil, e, fmt.Errorf("page %d: element %d is cut", p.id, i)
	}
	h := p.b[at:]
	word := func(n int) uint64 { return uint64(binary.NativeEndian.Uint32(h[n:])) }
	var pos, klen, vlen uint64
	if p.flags == boltBranch {
		pos, klen = word(0), word(4)
		e.child = binary.NativeEndian.Uint64(h[8:])
	} else {
		e.flags = binary.NativeEndian.Uint32(h)
		pos, klen, vlen = word(4), word(8), word(12)
	}
	if pos+klen+vlen > uint64(len(h)) {
		return nil, nil, e, fmt.Errorf("page %d: element %d does not fit", p.id, i)
	}
	return h[pos : pos+klen], h[pos+klen : pos+klen+vlen], e, nil
}
