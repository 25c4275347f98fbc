package main

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand"
	randv2 "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// The samples do in a bubble what makes one run differ from the next. They print
// a hash of everything that happened, in order and with its virtual time; see
// TestRunsAreIdenticalWithTheOverlay, which runs them in other processes.

// sampleVariable asks for the samples.
const sampleVariable = "LOCKNODE_DETSIM_SAMPLE"

// repeatVariable says that the samples were built with the overlay.
const repeatVariable = "LOCKNODE_DETSIM_REPEAT"

// events is what happened, in order.
type events struct {
	mu    sync.Mutex // guards what follows
	sum   uint64
	count int
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %d ", e.sum, time.Now().UnixNano())
	_, _ = fmt.Fprintf(h, format, args...)
	e.sum = h.Sum64()
	e.count++
}

const samplePrefix = "sample "

func sample(t *testing.T, f func(t *testing.T, dir string, e *events)) {
	if os.Getenv(sampleVariable) == "" {
		t.Skip("is run by TestRunsAreIdenticalWithTheOverlay")
	}
	var sums []string
	for range 3 {
		var e events
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) { f(t, dir, &e) })
		sums = append(sums, fmt.Sprintf("%016x of %d", e.sum, e.count))
		fmt.Printf("%s%s: %s\n", samplePrefix, t.Name(), sums[len(sums)-1])
		runtime.GC()
	}
	// The first is warming up; what ran before the others must not matter.
	if os.Getenv(repeatVariable) != "" && sums[1] != sums[2] {
		t.Errorf("the second and the third bubble differ: %q", sums)
	}
}

// TestSampleOfSchedule has many goroutines that draw random numbers, walk over
// maps, choose among ready channels, wake at one instant, queue for a mutex and
// yield.
func TestSampleOfSchedule(t *testing.T) {
	sample(t, func(_ *testing.T, _ string, e *events) {
		shared := make(map[string]int)
		ready := make([]chan int, 4)
		for i := range ready {
			ready[i] = make(chan int, 1000)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for g := range 400 { // more than a processor's queue holds
			wg.Go(func() {
				for step := range 20 {
					time.Sleep(time.Duration(rand.Intn(3)) * time.Millisecond)
					mu.Lock()
					shared[strconv.Itoa(randv2.IntN(50))]++
					for key := range shared {
						e.add("%d %d first key %s", g, step, key)
						break
					}
					if step%7 == 0 {
						runtime.Gosched() // others queue for the mutex
					}
					mu.Unlock()
					for _, c := range ready {
						select {
						case c <- g:
						default:
						}
					}
					runtime.Gosched()
					select {
					case from := <-ready[0]:
						e.add("%d got 0 %d", g, from)
					case from := <-ready[1]:
						e.add("%d got 1 %d", g, from)
					case from := <-ready[2]:
						e.add("%d got 2 %d", g, from)
					case from := <-ready[3]:
						e.add("%d got 3 %d", g, from)
					case <-time.After(time.Millisecond):
						e.add("%d got nothing", g)
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestSampleOfRaft has three Raft nodes, one of them with a real disk, and
// clients and cuts that come at random.
func TestSampleOfRaft(t *testing.T) {
	sample(t, func(t *testing.T, dir string, e *events) {
		nodes := newRafts(t, dir, e, 3)
		var wg sync.WaitGroup
		for c := range 4 {
			wg.Go(func() {
				for op := range 60 {
					time.Sleep(time.Duration(rand.Intn(200)) * time.Millisecond)
					for i := range nodes {
						n := nodes[(i+c)%len(nodes)]
						if n.raft.State() != raft.Leader {
							continue
						}
						err := n.raft.Apply([]byte{byte(c), byte(op)}, time.Second).Error()
						e.add("client %d op %d at %s: %v", c, op, n.address, err)
						break
					}
				}
			})
		}
		wg.Go(func() {
			for range 6 {
				time.Sleep(time.Duration(rand.Intn(2000)) * time.Millisecond)
				cut := rand.Intn(len(nodes))
				e.add("cut %d", cut)
				nodes.cut(cut)
				time.Sleep(time.Duration(rand.Intn(3000)) * time.Millisecond)
				e.add("heal")
				nodes.heal()
			}
		})
		wg.Wait()
		for _, n := range nodes {
			if err := n.raft.Shutdown().Error(); err != nil {
				t.Errorf("Shutdown = %v", err)
			}
			e.add("%s stopped at %d", n.address, n.raft.AppliedIndex())
		}
	})
}

type rafts []raftNode

type raftNode struct {
	raft      *raft.Raft
	transport *raft.InmemTransport
	address   raft.ServerAddress
}

func newRafts(t *testing.T, dir string, e *events, n int) rafts {
	var all rafts
	var servers []raft.Server
	for i := range n {
		address, transport := raft.NewInmemTransport(raft.ServerAddress(strconv.Itoa(i)))
		all = append(all, raftNode{transport: transport, address: address})
		servers = append(servers, raft.Server{ID: raft.ServerID(address), Address: address})
	}
	all.heal()
	for i := range all {
		c := raft.DefaultConfig()
		c.LocalID = servers[i].ID
		c.Logger = hclog.NewNullLogger()
		var logs raft.LogStore
		var stable raft.StableStore
		if i == 0 {
			bolt, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = bolt.Close() })
			logs, stable = bolt, bolt
		} else {
			inmem := raft.NewInmemStore()
			logs, stable = inmem, inmem
		}
		snapshots := raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(c, logs, stable, snapshots, all[i].transport, raft.Configuration{Servers: servers}); err != nil {
			t.Fatal(err)
		}
		r, err := raft.NewRaft(c, machine{e, i}, logs, stable, snapshots, all[i].transport)
		if err != nil {
			t.Fatal(err)
		}
		all[i].raft = r
	}
	return all
}

func (all rafts) heal() {
	for _, a := range all {
		for _, b := range all {
			a.transport.Connect(b.address, b.transport)
		}
	}
}

func (all rafts) cut(i int) {
	all[i].transport.DisconnectAll()
	for _, n := range all {
		n.transport.Disconnect(all[i].address)
	}
}

// machine notes what is applied.
type machine struct {
	e    *events
	node int
}

func (m machine) Apply(l *raft.Log) any {
	m.e.add("node %d applies %d of term %d: %x", m.node, l.Index, l.Term, l.Data)
	return nil
}

func (machine) Snapshot() (raft.FSMSnapshot, error) { return nil, io.ErrUnexpectedEOF }
func (machine) Restore(r io.ReadCloser) error       { return r.Close() }
