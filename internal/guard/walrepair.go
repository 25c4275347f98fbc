package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft-wal/types"
)

// When a segment of raft-wal is full, the last append to it writes the entries, an
// index of all entries and a commit frame at once; then the next segment is begun.
// raft-wal v0.4.1 does not survive an end of the process or a full disk between the
// two, nor one that leaves the index without the commit: it opens the log, and
// refuses every append with "segment is sealed", at this start and at every other
// one. So the last segment is looked at before raft-wal opens it:
//
//   - an index that was committed is entered into raft-wal's metadata, with a new
//     segment behind it, as raft-wal would have done next;
//   - an index that was not committed is cut off, with all that was not
//     acknowledged.
//
// The format is that of raft-wal's segment/format.go, which the pinned version
// fixes: a header of 32 bytes; then frames of a type, a length or checksum, and a
// payload padded to 8 bytes.
const (
	walHeaderLen   = 32
	walFrameLen    = 8
	walFrameEntry  = 1
	walFrameIndex  = 2
	walFrameCommit = 3
)

// walTail is what the last segment holds.
type walTail struct {
	last       uint64 // the last committed entry; one less than the first without any
	end        int64  // of the last commit; 0: there is none
	indexStart uint64 // of the committed index; 0: the segment is not full
	strayIndex bool   // an index that was not committed follows
}

// repairWAL makes a log whose writer ended while it filled a segment usable again.
// acknowledged is the last entry that must be there: when it is not, nothing is
// touched, and the check of the whole log says what is missing.
func repairWAL(dir string, meta types.MetaStore, acknowledged uint64) error {
	state, err := meta.Load(dir)
	if err != nil || len(state.Segments) == 0 {
		return err
	}
	seg := &state.Segments[len(state.Segments)-1]
	if !seg.SealTime.IsZero() {
		return nil
	}
	path := filepath.Join(dir, fmt.Sprintf("%020d-%016x.wal", seg.BaseIndex, seg.ID))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	tail, err := readWALTail(f, seg.BaseIndex)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	case tail.last < acknowledged && acknowledged >= seg.BaseIndex:
		return nil
	case tail.indexStart != 0:
		seg.SealTime, seg.MaxIndex, seg.IndexStart = time.Now(), tail.last, tail.indexStart
		state.Segments = append(state.Segments, types.SegmentInfo{
			ID: state.NextSegmentID, BaseIndex: tail.last + 1, MinIndex: tail.last + 1,
			SizeLimit: seg.SizeLimit, Codec: seg.Codec, CreateTime: time.Now(),
		})
		state.NextSegmentID++
		return meta.CommitState(state)
	case tail.strayIndex:
		return cutFile(f, tail.end)
	}
	return nil
}

// cutFile replaces what follows end by zeros, as in a segment that was just made.
func cutFile(f *os.File, end int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	return errors.Join(f.Truncate(info.Size()), f.Sync())
}

// readWALTail decides as raft-wal does which commit is the last one: all that is
// acknowledged lies before it.
func readWALTail(f io.ReaderAt, base uint64) (walTail, error) {
	type commit struct {
		offset, start int64 // of the commit frame, and of what its checksum covers
		entries       uint64
		indexStart    uint64 // of an index in the batch
		sum           uint32
	}
	var final, before commit // offset 0: none
	var entries, index uint64
	var head [walFrameLen]byte
	for offset := int64(walHeaderLen); ; {
		if _, err := f.ReadAt(head[:], offset); errors.Is(err, io.EOF) {
			break // a commit at the very end of the file is read in full, without EOF
		} else if err != nil {
			return walTail{}, fmt.Errorf("read frame at %d: %w", offset, err)
		}
		word, size := binary.LittleEndian.Uint32(head[4:]), int64(0)
		kind := head[0]
		switch kind {
		case walFrameEntry:
			entries, size = entries+1, int64(word)
		case walFrameIndex:
			index, size = uint64(offset)+walFrameLen, int64(word)
		case walFrameCommit:
			before = final
			final = commit{offset: offset, entries: entries, indexStart: index, sum: word}
			if before.offset != 0 {
				final.start = before.offset + walFrameLen
			}
			index = 0
		}
		if kind < walFrameEntry || kind > walFrameCommit {
			break // zeros, or the middle of a write that was torn
		}
		offset += walFrameLen + (size+7)/8*8
	}
	strayIndex := index != 0
	if final.offset != 0 && final.entries == entries {
		// Nothing was begun after it: it may itself be torn.
		batch := make([]byte, final.offset-final.start)
		if _, err := f.ReadAt(batch, final.start); err != nil {
			return walTail{}, fmt.Errorf("read the last batch at %d: %w", final.start, err)
		}
		if crc32.Checksum(batch, castagnoli) != final.sum {
			strayIndex = strayIndex || final.indexStart != 0
			final = before
		}
	}
	t := walTail{last: base + final.entries - 1, indexStart: final.indexStart, strayIndex: strayIndex}
	if final.offset != 0 {
		t.end = final.offset + walFrameLen
	}
	return t, nil
}
