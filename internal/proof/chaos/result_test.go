package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
)

func recovery(number int, fault string, all int) Recovery {
	d := time.Duration(all) * time.Millisecond
	return Recovery{Number: number, Fault: fault, After: sinceFault, At: time.Duration(number) * time.Second, First: d / 2, All: d, Bound: time.Second}
}

func TestPercentilesAreValuesThatOccurred(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i))
	}
	if got, want := percentiles(all), (Percentiles{50, 99, 100}); got != want {
		t.Errorf("percentiles of 1 to 100: got %v, want %v", got, want)
	}
	if got, want := percentiles(all[:1]), (Percentiles{100, 100, 100}); got != want {
		t.Errorf("percentiles of 100 alone: got %v, want %v", got, want)
	}
	if got := percentiles(nil); got != (Percentiles{}) {
		t.Errorf("percentiles of nothing: got %v", got)
	}
}

func TestResultIsGoodOnlyIfNothingBrokeAndNothingWasLate(t *testing.T) {
	good := Result{Recoveries: []Recovery{recovery(1, "kill-one", 1000)}}
	late := Result{Recoveries: []Recovery{recovery(1, "kill-one", 1001)}}
	broken := Result{Broken: []Violation{{Violation: history.Violation{Promise: "S1"}}}}
	for name, c := range map[string]struct {
		result Result
		good   bool
	}{"nothing": {Result{}, true}, "in time": {good, true}, "late": {late, false}, "broken": {broken, false}} {
		if got := c.result.OK(); got != c.good {
			t.Errorf("%s: OK: got %v, want %v", name, got, c.good)
		}
	}
}

func TestSummariesAreByKindAndByWhatTheyAreCountedFrom(t *testing.T) {
	r := Result{Recoveries: []Recovery{recovery(1, "kill-one", 300), recovery(2, "ring", 50), recovery(3, "kill-one", 1500), recovery(4, "kill-all", 200)}}
	r.Recoveries[3].After = sinceMajority
	got := r.Summaries()
	if len(got) != 3 || got[0].Fault != "kill-one" || got[1].Fault != "ring" || got[2].After != sinceMajority {
		t.Fatalf("Summaries: got %+v, want kill-one, ring and kill-all", got)
	}
	if s := got[0]; s.Count != 2 || s.Late != 1 || s.All.Max != 1500*time.Millisecond || s.First.P50 != 150*time.Millisecond {
		t.Errorf("kill-one: got %+v", s)
	}
	if k := r.Kills(); k.Count != 3 || k.All.P50 != 300*time.Millisecond {
		t.Errorf("Kills: got %+v, want the three that killed", k)
	}
}

// sample is a result with everything in it.
func sample() *Result {
	r := &Result{
		Seed: 4711, Nodes: 3, Clients: 2, Settings: []string{"--fast"}, Bound: time.Second, Began: time.Unix(1_700_000_000, 0).UTC(), Took: 5 * time.Minute, Dir: "/tmp/chaos",
		Kinds: []string{"kill-leader", "ring"}, Skipped: []Skipped{{"disk-full", "a small disk cannot be mounted here"}}, Operations: 12345, Kept: 17, ReadBack: true, Rounds: 3,
		Recoveries: []Recovery{recovery(1, "kill-leader", 400), recovery(2, "ring", 1700)},
		Broken: []Violation{{
			Violation: history.Violation{Promise: "S1", Check: "beliefs", Lock: "shared-0/3", Text: `token 4 of a was valid while <b> & "c" held it`}, Picture: "/tmp/chaos/round-1-shared-0-3.html",
		}},
		Details: []Detail{{Why: "around the slowest recovery", From: time.Second, Until: 4 * time.Second, Spans: []Span{
			{"shared-0/0", "c1-1", 5, 1100 * time.Millisecond, 1200 * time.Millisecond, ""},
			{"shared-0/0", "c2-1", 6, 1250 * time.Millisecond, 1300 * time.Millisecond, "its time was over"},
		}}},
	}
	r.Recoveries[1].Stall = 300 * time.Millisecond
	for i := range 600 {
		r.Timeline = append(r.Timeline, Bucket{At: time.Duration(i) * bucketWidth, Done: 100 + i%50, Failed: i % 7 / 6, P50: time.Millisecond, Max: 20 * time.Millisecond})
	}
	for i, kind := range []string{"kill-leader", "ring"} {
		k, _ := kindNamed(kind)
		at := time.Duration(i+1) * time.Second
		r.Events = append(r.Events, Event{Number: i + 1, Fault: kind, Family: k.Family, At: at, Until: at + 700*time.Millisecond, What: k.About})
	}
	return r
}

func TestTextSaysWhatWasFoundAndHowToSeeItAgain(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"seed 4711", "12345 operations", "skipped disk-full: a small disk cannot be mounted here", "kill-leader", "400 ms", "1700 ms",
		`S1 (found by beliefs), lock shared-0/3: token 4 of a was valid while <b> & "c" held it`, "picture: /tmp/chaos/round-1-shared-0-3.html",
		"LATE      fault 2, ring: clients worked 1700 ms after the fault, allowed are 1000 ms; the machine was so busy that this program stood still for up to 300 ms",
		"17 locks were granted and never released, and read back at the end",
		"1 promises broken, 1 recoveries late. Seed 4711; logs and histories are in /tmp/chaos",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text does not say %q:\n%s", want, b.String())
		}
	}
	b.Reset()
	if err := (&Result{Seed: 1}).WriteText(&b); err != nil || !strings.Contains(b.String(), "No promise was broken") {
		t.Errorf("the text of a good run: %v, %s", err, b.String())
	}
	if strings.Contains(b.String(), "read back at the end") {
		t.Errorf("nobody has read the locks back, and the text says so: %s", b.String())
	}
}

func TestPageStandsAloneAndShowsEverything(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{
		"seed 4711", "1 promises broken, 1 recoveries late", `href="round-1-shared-0-3.html"`, "fault 2 at 2 s, ring, for 700 ms",
		"clients worked 1700 ms after the fault", "c2-1 with token 6", "its time was over", "disk-full: a small disk", "S1 (found by beliefs)",
		"&lt;b&gt; &amp; &#34;c&#34;", // what a client said stays text
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	for _, foreign := range []string{"<script", "http://", "https://", "src=", "@import", "<b> &", "ZgotmplZ"} {
		if strings.Contains(page, foreign) {
			t.Errorf("the page contains %q", foreign)
		}
	}
	if got := strings.Count(page, `aria-label="time line`); got != 3 {
		t.Errorf("five minutes are shown in %d pictures, want 3", got)
	}
	if got := strings.Count(page, "answers/s, p50"); got < 600 {
		t.Errorf("%d steps of the time line are shown, want 600 at least", got)
	}
}

func TestPageOfALongRunStaysShort(t *testing.T) {
	r := sample()
	r.Took = 12 * time.Hour
	if got := len(r.page().Strips); got > maxStrips+1 {
		t.Errorf("twelve hours are shown in %d pictures, want %d at most", got, maxStrips)
	}
	if got := len((&Result{}).page().Strips); got != 0 {
		t.Errorf("nothing is shown in %d pictures", got)
	}
}

func TestJSONHasTheSameFacts(t *testing.T) {
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(b, &back); err != nil || fmt.Sprintf("%+v", back) != fmt.Sprintf("%+v", *sample()) {
		t.Errorf("read back: %v\n%+v\nwant\n%+v", err, back, *sample())
	}
}

func TestBucketsCountAnswersWhenTheyCameAndQuestionsThatNeverWereAnswered(t *testing.T) {
	at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
	h := &history.History{Ops: []history.Op{
		{Kind: history.Get, Call: at(100), Return: at(110), Outcome: history.OK},
		{Kind: history.Release, Call: at(100), Return: at(130), Outcome: history.OK},
		{Kind: history.Acquire, Wait: -1, Call: at(100), Return: at(900), Outcome: history.OK}, // waited in the queue
		{Kind: history.Acquire, Call: at(600), Return: history.Never, Outcome: history.Unknown},
		{Kind: history.KeepAlive, Call: at(600), Return: at(601), Outcome: history.OK},
	}}
	want := []Bucket{{At: 0, Done: 2, P50: at(10), Max: at(30)}, {At: at(500), Done: 1, Failed: 1}}
	if got := buckets(h); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
