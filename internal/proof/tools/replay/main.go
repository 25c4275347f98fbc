// Replay applies a log of the lock table and prints what came of it: the digest
// after every so many entries, and the SHA-256 of the table's snapshot at the
// end. The same log gives the same lines, however the program was built.
//
//	go run ./internal/proof/tools/replay [-every N] [-restore N] log
//
// The log is a sequence of entries, each its index (8 bytes), its term (8), its
// length (4), all big endian, and its bytes. With -restore the table is replaced
// by one that was restored from its snapshot after every N entries.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/locknode/locknode/fsm"
)

func main() {
	every := flag.Int("every", 1000, "print the digest after so many entries")
	restore := flag.Int("restore", 0, "go on from a restored snapshot after so many entries; 0: never")
	flag.Parse()
	if flag.NArg() != 1 || *every < 1 || *restore < 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := replay(flag.Arg(0), uint64(*every), uint64(*restore), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func replay(path string, every, restore uint64, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	in, out := bufio.NewReader(f), bufio.NewWriter(w)
	table := fsm.New()
	for {
		index, term, data, err := next(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		applied := table.Apply(index, term, data)
		if index%every == 0 {
			_, _ = fmt.Fprintf(out, "%d %016x\n", index, applied.Digest) // Flush tells
		}
		if restore != 0 && index%restore == 0 {
			if table, err = restored(table); err != nil {
				return fmt.Errorf("after entry %d: %w", index, err)
			}
		}
	}
	digest, index := table.Digest()
	_, _ = fmt.Fprintf(out, "end %d %016x %x\n", index, digest, table.Hash())
	return out.Flush()
}

// next reads an entry; io.EOF says that there is none.
func next(in io.Reader) (index, term uint64, data []byte, err error) {
	const most = 64 << 20 // far more than an entry has
	var head [20]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[16:])
	if size > most {
		return 0, 0, nil, fmt.Errorf("an entry of %d bytes: at most %d are allowed", size, most)
	}
	data = make([]byte, size)
	if _, err := io.ReadFull(in, data); err != nil {
		return 0, 0, nil, io.ErrUnexpectedEOF
	}
	return binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint64(head[8:]), data, nil
}

func restored(table *fsm.Table) (*fsm.Table, error) {
	var snapshot bytes.Buffer
	if _, err := table.Snapshot().WriteTo(&snapshot); err != nil {
		return nil, err
	}
	return fsm.Restore(&snapshot)
}
