package chaos

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The report for people: one file, without scripts, that needs no network.

//go:embed report.html.tmpl
var reportText string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"ms": ms, "base": filepath.Base, "colour": colour,
	"seconds": func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) },
	"round":   func(d time.Duration) time.Duration { return d.Round(time.Second) },
}).Parse(reportText))

// The pictures, in units of the SVG.
const (
	pictureWidth = 1160.0
	leftMargin   = 105.0
	plotWidth    = pictureWidth - leftMargin - 25

	faultsTop, faultsHeight   = 22.0, 34.0
	opsTop, opsHeight         = 70.0, 60.0
	latencyTop, latencyHeight = 146.0, 76.0
	stripHeight               = 236.0

	stripLength = 2 * time.Minute // of the time line in one picture
	maxStrips   = 30
)

var families = []string{"process", "client", "network", "disk", "files", "members"}

func colour(family string) string {
	colours := map[string]string{
		"process": "#c0392b", "client": "#2471a3", "network": "#8e44ad", "disk": "#ca6f1e", "files": "#148f77", "members": "#616a6b",
	}
	return colours[family]
}

// WriteHTML writes the report for people.
func (r *Result) WriteHTML(w io.Writer) error {
	return reportTemplate.Execute(w, r.page())
}

// page is what the template shows.
type page struct {
	*Result
	Good     bool
	LateOnes []Recovery
	Families []string
	Rows     []recoveryRow
	Strips   []strip
	Details  []detailPicture
	Width    float64
	Height   float64 // of a strip
}

// recoveryRow is a line of the table of recoveries, with a picture of all of them.
type recoveryRow struct {
	Summary
	Colour string
	Dots   []dot
	Bound  float64 // where the bound is
}

type dot struct {
	X    float64
	Late bool
}

// rect is a rectangle with a title to be seen when pointed at.
type rect struct {
	X, Y, W, H float64
	Colour     string
	Title      string
}

// mark is a line across a picture, with a text.
type mark struct {
	At   float64
	Text string
}

// strip is a part of the time line.
type strip struct {
	Ticks          []mark // of time
	Faults         []rect
	Ops            []rect
	OpsMarks       []mark
	Latency        []rect
	LatencyMarks   []mark
	OpsTop         float64
	LatencyTop     float64
	FaultsTop      float64
	Left, Right    float64
	OpsBottom      float64
	LatencyBottom  float64
	UnansweredDots []rect
}

// detailPicture shows grants, a lane for each lock.
type detailPicture struct {
	Why    string
	Height float64
	Ticks  []mark
	Lanes  []mark
	Spans  []rect
	Faults []rect
	Left   float64
	Right  float64
}

func (r *Result) page() page {
	p := page{Result: r, Good: r.OK(), LateOnes: r.Late(), Families: families, Width: pictureWidth, Height: stripHeight}
	family := map[string]string{}
	for _, e := range r.Events {
		family[e.Fault] = e.Family
	}
	for _, s := range r.Summaries() {
		p.Rows = append(p.Rows, r.recoveryRow(s, colour(family[s.Fault])))
	}
	length := max(stripLength, r.Took/maxStrips)
	if r.Took < length {
		length = max(r.Took, time.Second)
	}
	for from := time.Duration(0); from < r.Took; from += length {
		p.Strips = append(p.Strips, r.strip(from, from+length))
	}
	for _, d := range r.Details {
		p.Details = append(p.Details, r.detailPicture(d))
	}
	return p
}

// recoveryRow places all recoveries of a kind on a line that ends at a second and
// a half, or where the slowest is.
func (r *Result) recoveryRow(s Summary, colour string) recoveryRow {
	const width = 300.0
	most := max(s.Bound*3/2, s.All.Max)
	x := func(d time.Duration) float64 { return round(width * float64(d) / float64(most)) }
	row := recoveryRow{Summary: s, Colour: colour, Bound: x(s.Bound)}
	for _, rec := range r.Recoveries {
		if rec.Fault == s.Fault && rec.After == s.After {
			row.Dots = append(row.Dots, dot{x(rec.All), rec.All > rec.Bound})
		}
	}
	return row
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// scale places times between from and until in a picture.
func scale(from, until time.Duration) func(time.Duration) float64 {
	return func(t time.Duration) float64 {
		t = min(max(t, from), until)
		return round(leftMargin + plotWidth*float64(t-from)/float64(until-from))
	}
}

// timeTicks are about a dozen round times.
func timeTicks(from, until time.Duration) (ticks []mark) {
	step := time.Second
	for _, s := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, time.Hour} {
		step = s
		if (until-from)/step <= 13 {
			break
		}
	}
	x := scale(from, until)
	for t := from.Truncate(step); t <= until; t += step {
		if t >= from {
			ticks = append(ticks, mark{x(t), shortTime(t)})
		}
	}
	return ticks
}

// shortTime is a time since the beginning.
func shortTime(t time.Duration) string {
	if t%time.Second != 0 {
		return fmt.Sprintf("%.1f s", t.Seconds())
	}
	if t < 2*time.Minute {
		return fmt.Sprintf("%d s", int(t.Seconds()))
	}
	return fmt.Sprintf("%d:%02d", int(t.Minutes()), int(t.Seconds())%60)
}

func (r *Result) strip(from, until time.Duration) strip {
	s := strip{
		Ticks: timeTicks(from, until), Faults: r.faultRects(from, until, faultsTop, faultsHeight),
		FaultsTop: faultsTop, OpsTop: opsTop, LatencyTop: latencyTop,
		Left: leftMargin, Right: leftMargin + plotWidth, OpsBottom: opsTop + opsHeight, LatencyBottom: latencyTop + latencyHeight,
	}
	x := scale(from, until)
	mostOps := 1
	for _, b := range r.Timeline {
		mostOps = max(mostOps, b.Done)
	}
	perSecond := float64(mostOps) / bucketWidth.Seconds()
	s.OpsMarks = []mark{{opsTop + 4, fmt.Sprintf("%.0f/s", perSecond)}, {s.OpsBottom, "0"}}
	for _, l := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second} {
		s.LatencyMarks = append(s.LatencyMarks, mark{latencyY(l), shortLatency(l)})
	}
	for _, b := range r.Timeline {
		if b.At < from || b.At >= until {
			continue
		}
		left, right := x(b.At), x(b.At+bucketWidth)
		h := round(opsHeight * float64(b.Done) / float64(mostOps))
		title := fmt.Sprintf("%s: %.0f answers/s, p50 %s, slowest %s", shortTime(b.At), float64(b.Done)/bucketWidth.Seconds(), shortLatency(b.P50), shortLatency(b.Max))
		if b.Failed > 0 {
			title += fmt.Sprintf(", %d never answered", b.Failed)
			s.UnansweredDots = append(s.UnansweredDots, rect{X: left, Y: s.OpsBottom + 2, W: max(2, right-left-1), H: 3, Title: title})
		}
		s.Ops = append(s.Ops, rect{X: left, Y: s.OpsBottom - h, W: max(1, right-left-0.5), H: h, Title: title})
		if b.Max > 0 {
			top, bottom := latencyY(b.Max), latencyY(b.P50)
			s.Latency = append(s.Latency, rect{X: left, Y: top, W: max(1, right-left-0.5), H: max(1.5, round(bottom-top)), Title: title})
		}
	}
	return s
}

// latencyY is the height of a latency, from 0.3 ms to 10 s, each decade the same.
func latencyY(d time.Duration) float64 {
	const least, decades = 300e-6, 4.5
	share := math.Log10(max(d.Seconds(), least)/least) / decades
	return round(latencyTop + latencyHeight*(1-min(1, share)))
}

func shortLatency(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	if d < 10*time.Millisecond && d > 0 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(d.Microseconds())/1000), ".0") + " ms"
	}
	return ms(d)
}

// faultRects are the faults in a part of the time; those that happened beside
// others are in the lower half.
func (r *Result) faultRects(from, until time.Duration, top, height float64) (rects []rect) {
	x := scale(from, until)
	main := map[int]bool{}
	for _, e := range slices.SortedStableFunc(slices.Values(r.Events), func(a, b Event) int { return int((a.At - b.At) / time.Microsecond) }) {
		beside := main[e.Number]
		main[e.Number] = true
		if e.Until < from || e.At >= until {
			continue
		}
		title := fmt.Sprintf("fault %d at %s, %s, for %s: %s", e.Number, shortTime(e.At.Round(100*time.Millisecond)), e.Fault, shortLatency(e.Until-e.At), e.What)
		for _, rec := range r.Recoveries {
			if rec.Number == e.Number && rec.Fault == e.Fault {
				title += fmt.Sprintf("; clients worked %s after %s", ms(rec.All), rec.After)
			}
		}
		q := rect{X: x(e.At), Y: top, W: max(3, round(x(e.Until)-x(e.At)-1)), H: height, Colour: colour(e.Family), Title: title}
		if beside {
			q.Y, q.H = top+height*0.6, height*0.4
		}
		rects = append(rects, q)
	}
	return rects
}

// detailPicture shows who held which lock.
func (r *Result) detailPicture(d Detail) detailPicture {
	const laneHeight, top = 16.0, 50.0
	x := scale(d.From, d.Until)
	p := detailPicture{Why: d.Why, Ticks: timeTicks(d.From, d.Until), Faults: r.faultRects(d.From, d.Until, 22, 18), Left: leftMargin, Right: leftMargin + plotWidth}
	var locks []string
	for _, s := range d.Spans {
		if !slices.Contains(locks, s.Lock) {
			locks = append(locks, s.Lock)
		}
	}
	slices.Sort(locks)
	for i, lock := range locks {
		p.Lanes = append(p.Lanes, mark{top + float64(i)*laneHeight + 11, lock})
	}
	for _, s := range d.Spans {
		lane := top + float64(slices.Index(locks, s.Lock))*laneHeight
		title := fmt.Sprintf("%s: %s with token %d, from %.3f s to %.3f s", s.Lock, s.Client, s.Token, s.From.Seconds(), s.Until.Seconds())
		if s.Lost != "" {
			title += ", then lost: " + s.Lost
		}
		p.Spans = append(p.Spans, rect{
			X: x(s.From), Y: lane + 2, W: max(1.5, round(x(s.Until)-x(s.From))), H: laneHeight - 4, Colour: shade(s.Client), Title: title,
		})
	}
	p.Height = top + float64(len(locks))*laneHeight + 12
	return p
}

// shade tells clients apart.
func shade(client string) string {
	sum := 0
	for _, b := range []byte(client) {
		sum = sum*31 + int(b)
	}
	return fmt.Sprintf("hsl(%d, 55%%, 45%%)", sum*47%360)
}
