package main

import (
	"math"
	"path/filepath"

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
			uncontended = append(uncontended, w.name)
		}
	}
	ratios := func(of func(string, workload) []float64) []series {
		return r.lines(r.plan.workloads, func(s string, w workload) float64 { return ratio(of(s, w), of(baseline, w)) })
	}
	var images []image
	for _, p := range []struct {
		image
		y      string
		x      []string
		series []series
	}{
		{image{"Uncontended locks", "uncontended.svg"}, "cycles a second", uncontended,
			r.lines(own, func(s string, w workload) float64 { return median(r.rates(s, w)) })},
		{image{"Rate, as a multiple of etcd's", "rate.svg"}, "× etcd", all, ratios(r.rates)},
		{image{"Server CPU for 1,000 steps", "cpu.svg"}, "ms", all,
			r.lines(r.plan.workloads, func(s string, w workload) float64 { return median(r.cpus(s, w)) })},
	} {
		drawn, err := draw(filepath.Join(dir, p.file), p.title, p.y, p.x, p.series)
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

// draw writes an SVG with a logarithmic y axis, on which a value that is not above 0 has no place.
func draw(file, title, y string, x []string, all []series) (drawn bool, err error) {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = title, y
	p.NominalX(x...)
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, s := range all {
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
		p.Add(line, dots)
		p.Legend.Add(s.name, line, dots)
		drawn = true
	}
	if !drawn {
		return false, nil
	}
	// From one power of ten to another, and one more above for the legend.
	p.Y.Min = math.Pow(10, math.Floor(math.Log10(p.Y.Min)))
	p.Y.Max = math.Pow(10, math.Ceil(math.Log10(p.Y.Max))+1)
	return true, p.Save(24*vg.Centimeter, 13*vg.Centimeter, file)
}
