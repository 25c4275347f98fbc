package fuzz

import (
	"fmt"
	"runtime"
	"time"
)

// hangsAfter is far longer than one execution takes on a busy machine.
const hangsAfter = 20 * time.Second

// Watch ends the process if stop is not called within 20 s. The fuzzer has no limit for one
// execution, but keeps the input of a worker that crashes.
func Watch() (stop func()) {
	t := time.AfterFunc(hangsAfter, func() { panic(fmt.Sprintf("an execution hangs for %v\n%s", hangsAfter, stacks())) })
	return func() { t.Stop() }
}

func stacks() []byte {
	b := make([]byte, 1<<20)
	return b[:runtime.Stack(b, true)]
}

// Allocated runs f and returns how many bytes the whole process has allocated
// meanwhile. What other goroutines do counts, too.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Bytes hands out a fuzzer's bytes as choices. When they are at their end every
// choice is 0.
type Bytes struct{ Data []byte }

// Pick returns a number from 0 to n-1, n at most 256.
func (b *Bytes) Pick(n int) int { return int(b.byte()) % n }

func (b *Bytes) byte() byte {
	if len(b.Data) == 0 {
		return 0
	}
	v := b.Data[0]
	b.Data = b.Data[1:]
	return v
}

// Uint64 takes eight bytes.
func (b *Bytes) Uint64() (v uint64) {
	for range 8 {
		v = v<<8 | uint64(b.byte())
	}
	return v
}

// Take returns the next bytes, at most 255, as many as their first says.
func (b *Bytes) Take() []byte {
	n := min(int(b.byte()), len(b.Data))
	v := b.Data[:n]
	b.Data = b.Data[n:]
	return v
}

// Empty reports whether all bytes were used.
func (b *Bytes) Empty() bool { return len(b.Data) == 0 }
