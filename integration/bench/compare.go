package bench

import (
	"fmt"
	"strings"
)

// Compare tells what differs from an earlier report: medians of the product and its ratios to the floor. A change is
// marked when the rounds of the two do not overlap.
func (rep *Report) Compare(old *Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "changes since %s (version %s, %s); marked with * where the rounds do not overlap\n", old.Began.UTC().Format("2006-01-02 15:04"), old.Version, old.Machine)
	if old.Machine != rep.Machine || old.Kernel != rep.Kernel {
		fmt.Fprintf(&b, "another machine: %s, Linux %s; then %s, Linux %s\n", rep.Machine, rep.Kernel, old.Machine, old.Kernel)
	}
	for _, r := range rep.Results {
		was := old.result(r.Scenario.Name)
		if was == nil {
			continue
		}
		if r.Scenario != was.Scenario {
			fmt.Fprintf(&b, "\n%s: the scenario itself differs\n", r.Scenario.Name)
		} else {
			fmt.Fprintf(&b, "\n%s\n", r.Scenario.Name)
		}
		for _, f := range figures() {
			if !r.Scenario.shown(&f) || f.name == "others_share" {
				continue
			}
			line(&b, f.text, f.more, func(x *Result) (Spread, bool) { return x.spread(product, f.name) }, was, r)
			line(&b, strings.TrimSpace(f.text)+" / floor", f.more, func(x *Result) (Spread, bool) { return x.pairs(f.name, ratio) }, was, r)
		}
	}
	return b.String()
}

func line(b *strings.Builder, text string, more bool, of func(*Result) (Spread, bool), was, is *Result) {
	x, had := of(was)
	y, has := of(is)
	if !had || !has || x.Median == 0 {
		return
	}
	change := (y.Median/x.Median - 1) * 100
	marked := ""
	if y.Least > x.Most || y.Most < x.Least {
		marked = " * worse"
		if (change > 0) == more {
			marked = " * better"
		}
	}
	fmt.Fprintf(b, "  %-45s %24s -> %-24s %+6.1f %%%s\n", text, x, y, change, marked)
}
