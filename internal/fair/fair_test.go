package fair

import (
	"math/rand/v2"
	"slices"
	"testing"
)

var plenty = Room{1 << 30, 1 << 40}

func drain(q *Queue[string]) (order []string) {
	for {
		item, _, ok := q.Pop()
		if !ok {
			return order
		}
		order = append(order, item)
	}
}

func TestAFloodOfOneOwnerDelaysAnotherByOneItem(t *testing.T) {
	for _, level := range []struct {
		name           string
		flooder, other Owner
	}{
		{"address", Owner{Address: 1}, Owner{Address: 2}},
		{"connection", Owner{1, 1}, Owner{1, 2}},
	} {
		var q Queue[string]
		for range 1000 {
			q.Put(level.flooder, "flood", 1)
		}
		q.Put(level.other, "first", 1)
		q.Put(level.other, "second", 1)
		if order := drain(&q)[:4]; !slices.Equal(order, []string{"flood", "first", "flood", "second"}) {
			t.Errorf("%s: %v, want the other's items to take turns with the flood", level.name, order)
		}
	}
}

func TestConnectionsOfOneAddressTakeNoTurnsFromAnotherOne(t *testing.T) {
	var q Queue[string]
	for i := range uint64(1000) {
		q.Put(Owner{Address: 1, Connection: i}, "flood", 1)
	}
	q.Put(Owner{Address: 2}, "other", 1)
	if at := slices.Index(drain(&q), "other"); at > 1 {
		t.Errorf("the other address's item is number %d, want 1 at most", at)
	}
}

func TestLargeItemsArePaidForByTheirOwner(t *testing.T) {
	var q Queue[string]
	large, small := Owner{Address: 1}, Owner{Address: 2}
	for range 10 {
		q.Put(large, "large", 8*quantum)
	}
	for range 100 {
		q.Put(small, "small", 64)
	}
	order := drain(&q)
	n := 0
	for _, item := range order[:50] {
		if item == "large" {
			n++
		}
	}
	if n < 3 || n > 8 {
		t.Errorf("%d of the first 50 items are large, want about one for every eight small ones", n)
	}
	for range 3 {
		q.Put(large, "large", 8*quantum)
	}
	if order := drain(&q); len(order) != 3 {
		t.Errorf("%v, want three: nobody else is there", order)
	}
}

func TestOneOwnerLeavesRoomForOthers(t *testing.T) {
	const room = 1000
	var s Shares
	fill := func(o Owner) (n int) {
		for {
			if _, ok := s.Enter(o, room); !ok {
				return n
			}
			n++
		}
	}
	if n := fill(Owner{1, 1}); n < room/4 || n > room/3+1 {
		t.Errorf("one owner alone has %d of %d places, want a third", n, room)
	}
	if n := fill(Owner{1, 2}); n < room/20 {
		t.Errorf("a connection got %d places beside one that takes all it can", n)
	}
	for i := range uint64(1000) { // of one address
		fill(Owner{1, i})
	}
	if s.Len() > room/2+1 {
		t.Errorf("an address has %d of %d places under a thousand connections, want half at most", s.Len(), room)
	}
	if n := fill(Owner{2, 1}); n < room/10 {
		t.Errorf("an address got %d places beside one that takes all it can", n)
	}
}

func TestBytesAreSharedAsItemsAre(t *testing.T) {
	var q Queue[string]
	room := Room{Items: 1000, Bytes: 1 << 20}
	for q.Push(Owner{Address: 1}, "flood", 60<<10, room) {
	}
	if used := q.tree.root.used.Bytes; used > room.Bytes/2 {
		t.Errorf("one owner has queued %d bytes of %d, want half at most", used, room.Bytes)
	}
	if !q.Push(Owner{Address: 2}, "other", 60<<10, room) {
		t.Error("another owner was refused its first item")
	}
	if q.Push(Owner{Address: 3}, "huge", 1<<20, room) {
		t.Error("an item that is larger than what is free was taken")
	}
}

// TestItemsOfAnOwnerStayInOrder compares a queue with what it should hold, after each
// of many random steps.
func TestItemsOfAnOwnerStayInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var q Queue[[2]uint64]
	want := map[uint64][]uint64{} // owner → items
	owner := func(i uint64) Owner { return Owner{i % 7, i} }
	total := 0
	for step := range uint64(200_000) {
		if r.IntN(2) == 0 && total < 500 {
			o := r.Uint64N(105) * r.Uint64N(2)
			q.Put(owner(o), [2]uint64{o, step}, r.IntN(3*quantum))
			want[o] = append(want[o], step)
			total++
			continue
		}
		item, _, ok := q.Pop()
		if ok != (total > 0) {
			t.Fatalf("step %d: pop says %v with %d items", step, ok, total)
		}
		if !ok {
			continue
		}
		total--
		if line := want[item[0]]; len(line) == 0 || line[0] != item[1] {
			t.Fatalf("step %d: got item %d of owner %d, want the first of %v", step, item[1], item[0], line)
		}
		want[item[0]] = want[item[0]][1:]
		if q.Len() != total {
			t.Fatalf("step %d: %d items, want %d", step, q.Len(), total)
		}
	}
}

func TestOwnersWithoutAnythingAreForgotten(t *testing.T) {
	var s Shares
	kept, _ := s.Enter(Owner{Address: 1 << 40}, 1000)
	for i := range uint64(100_000) {
		p, ok := s.Enter(Owner{i % 1000, i}, 1000)
		if !ok {
			t.Fatal("refused though nothing else is taken")
		}
		s.Leave(p)
	}
	for level, nodes := range s.tree.at {
		if len(nodes) > 4*fewIdle {
			t.Errorf("level %d: %d owners are remembered, all but one without anything", level, len(nodes))
		}
	}
	if s.Leave(kept); s.Len() != 0 {
		t.Errorf("%d places are taken in the end, want none", s.Len())
	}
}

func BenchmarkQueue(b *testing.B) {
	for _, owners := range []struct {
		name string
		n    uint64
	}{{"one owner", 1}, {"thousand owners", 1000}} {
		b.Run(owners.name, func(b *testing.B) {
			var q Queue[func()]
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				q.Push(Owner{1, i % owners.n}, nil, 64, plenty)
				if i%1024 == 1023 {
					for range 1024 {
						q.Pop()
					}
				}
			}
		})
	}
}
