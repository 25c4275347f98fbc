package simdisk

import (
	"maps"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
)

// content is what a disk holds. Byte slices in it are never changed in place, so
// that clones may share them. Disk.mu guards it.
type content struct {
	entries   []raft.Log // without gaps
	stable    map[string][]byte
	snapshots []*snapshot // newest first
	identity  disk.Identity
	retain    int
}

// snapshot is never changed.
type snapshot struct {
	meta     raft.SnapshotMeta
	number   uint64
	contents []byte
	damaged  bool
}

func newContent(retain int) *content {
	return &content{stable: map[string][]byte{}, retain: retain}
}

func (c *content) clone() *content {
	return &content{
		entries:   slices.Clone(c.entries),
		stable:    maps.Clone(c.stable),
		snapshots: slices.Clone(c.snapshots),
		identity:  cloneIdentity(c.identity),
		retain:    c.retain,
	}
}

func (c *content) first() uint64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[0].Index
}

func (c *content) last() uint64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[len(c.entries)-1].Index
}

// entry returns nil if there is none.
func (c *content) entry(index uint64) *raft.Log {
	if first := c.first(); first == 0 || index < first || index > c.last() {
		return nil
	}
	return &c.entries[index-c.first()]
}

// cutStart drops the entries up to an index, cutEnd those from one on.
func (c *content) cutStart(to uint64) {
	n := min(int(to-c.first())+1, len(c.entries))
	clear(c.entries[:n])
	c.entries = c.entries[n:]
}

func (c *content) cutEnd(from uint64) {
	n := int(from - c.first())
	clear(c.entries[n:])
	c.entries = c.entries[:n]
}

// addSnapshot keeps the newest.
func (c *content) addSnapshot(s *snapshot) {
	c.snapshots = append(c.snapshots, s)
	slices.SortFunc(c.snapshots, newestFirst)
	if len(c.snapshots) > c.retain {
		c.snapshots = slices.Clone(c.snapshots[:c.retain])
	}
}

func (c *content) dropDamaged() {
	c.snapshots = slices.DeleteFunc(c.snapshots, func(s *snapshot) bool { return s.damaged })
}

func cloneIdentity(id disk.Identity) disk.Identity {
	id.Promise = maps.Clone(id.Promise)
	return id
}

func (l *life) saveIdentity(id disk.Identity) error {
	id = cloneIdentity(id)
	return l.write(func(*content) (op, error) {
		return func(c *content) { c.identity = id }, nil
	})
}
