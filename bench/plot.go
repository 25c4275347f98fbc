package main

import (
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// image is a plot in a file.
type image struct{ title, file string }

// series is one line of a plot: a value for each place on the x axis, NaN where there is none.
type series struct {
	name   string
	values []float64
}

// plots draws the plots into the directory; those without a value are left out.
func (r *results) plots(dir string) ([]image, error) {
	var uncontended, all []string
	var own []workload
	for _, w := range r.plan.workloads {
		all = append(all, w.name)
		if w.kind == "uncontended" {
			own = append(own, w)
			uncontended = append(uncontended, strconv.Itoa(w.workers))
		}
	}
	ratios := func(of func(string, workload) []float64) []series {
		return r.lines(r.plan.workloads, func(s string, w workload) float64 { return ratio(of(s, w), of(baseline, w)) })
	}
	var images []image
	for _, p := range []drawing{
		{image{"Uncontended locks", "uncontended.svg"}, "workers", "cycles a second", true, uncontended,
			r.lines(own, func(s string, w workload) float64 { return median(r.rates(s, w)) })},
		{image{"Rate, as a multiple of etcd's", "rate.svg"}, "", "× etcd", false, all, ratios(r.rates)},
		{image{"Server CPU for 1,000 steps", "cpu.svg"}, "", "ms", false, all,
			r.lines(r.plan.workloads, func(s string, w workload) float64 { return median(r.cpus(s, w)) })},
	} {
		drawn, err := p.save(dir)
		if err != nil {
			return nil, err
		}
		if drawn {
			images = append(images, p.image)
		}
	}
	return images, nil
}

func (r *results) lines(over []workload, of func(string, workload) float64) []series {
	var all []series
	for _, s := range r.plan.systems {
		line := series{name: s.title}
		for _, w := range over {
			line.values = append(line.values, of(s.name, w))
		}
		all = append(all, line)
	}
	return all
}

// drawing is what a plot shows.
type drawing struct {
	image
	x, y   string   // what the axes are
	joined bool     // there is something between the places on the x axis
	places []string // on the x axis
	series []series
}

// save writes an SVG with a logarithmic y axis, on which a value that is not above 0 has no place.
func (d *drawing) save(dir string) (drawn bool, err error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = d.title, d.x, d.y
	p.NominalX(d.places...)
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, powers{}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, s := range d.series {
		var points plotter.XYs
		for at, v := range s.values {
			if v > 0 && !math.IsInf(v, 0) {
				points = append(points, plotter.XY{X: float64(at), Y: v})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return false, err
		}
		line.Color, dots.Color, dots.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
		dots.Radius = vg.Points(4)
		p.Add(dots)
		if d.joined {
			p.Add(line)
		}
		p.Legend.Add(s.name, dots)
		drawn = true
	}
	if !drawn {
		return false, nil
	}
	p.X.Min, p.X.Max = -0.5, float64(len(d.places))-0.5
	// From one power of ten to another, and one more above for the legend.
	p.Y.Min = math.Pow(10, math.Floor(math.Log10(p.Y.Min)))
	p.Y.Max = math.Pow(10, math.Ceil(math.Log10(p.Y.Max))+1)
	return true, p.Save(26*vg.Centimeter, 13*vg.Centimeter, filepath.Join(dir, d.file))
}

// powers are the ticks of a logarithmic axis, with labels that people write.
type powers struct{}

// Ticks is called by the plot.
func (powers) Ticks(low, high float64) []plot.Tick {
	ticks := plot.LogTicks{Prec: -1}.Ticks(low, high)
	for i, t := range ticks {
		switch {
		case t.Label == "":
		case t.Value < 1:
			ticks[i].Label = strconv.FormatFloat(t.Value, 'f', -1, 64)
		default:
			ticks[i].Label = strings.TrimSuffix(number(t.Value), ".0")
		}
	}
	return ticks
}
