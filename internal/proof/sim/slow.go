package sim

import (
	"fmt"
	"sync"
	"time"
)

// late is a delay before each entry that a node applies.
type late struct {
	mu      sync.Mutex // guards what follows
	by      time.Duration
	changed chan struct{} // closed when by is set; nil: nobody waits
}

// set reports whether it changes anything.
func (l *late) set(by time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == by {
		return false
	}
	l.by = by
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return true
}

// wait returns when the delay is over, or another one is set.
func (l *late) wait() {
	l.mu.Lock()
	if l.by == 0 {
		l.mu.Unlock()
		return
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	by, changed := l.by, l.changed
	l.mu.Unlock()
	t := time.NewTimer(by)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	}
}

// SlowApply delays each entry before a node applies it; zero ends that, and so does the end
// of the node. Its log and its votes are not delayed.
func (c *Cluster) SlowApply(name string, by time.Duration) error {
	m, err := c.member(name)
	if err != nil {
		return fmt.Errorf("slow apply: %w", err)
	}
	if by < 0 {
		return fmt.Errorf("slow apply of %q: delay: is %v, must be 0 or more", name, by)
	}
	if !m.late.set(by) {
		return nil
	}
	c.recorder.Fault(fmt.Sprintf("%s applies entries %v later", name, by), c.Now(), 0)
	return nil
}
