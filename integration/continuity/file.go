package continuity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Name is what a run's files are called: its seed and its mode.
func (rep *Report) Name() string {
	name := fmt.Sprintf("seed-%d", rep.Options.Seed)
	if rep.Options.Overlap {
		name += "-overlap"
	}
	return name
}

// Write puts the report and its plots into a folder, and describes all reports that are there in its README.md.
func (rep *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	text, err := rep.encode()
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, rep.Name()+".json"), text, 0o644); err != nil { //nolint:gosec // for everybody to read
		return fmt.Errorf("write the report: %w", err)
	}
	return Describe(dir)
}

// Describe draws the plots of all reports in a folder and writes its README.md.
func Describe(dir string) error {
	reports, err := Load(dir)
	if err != nil {
		return err
	}
	for _, rep := range reports {
		if err := rep.draw(dir); err != nil {
			return fmt.Errorf("draw %s: %w", rep.Name(), err)
		}
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(page(reports)), 0o644) //nolint:gosec // for everybody to read
}

// Load reads all reports in a folder, those of faults in turn first, in order of their seeds.
func Load(dir string) ([]*Report, error) {
	files, err := filepath.Glob(filepath.Join(dir, "seed-*.json"))
	if err != nil {
		return nil, fmt.Errorf("load reports: %w", err)
	}
	var out []*Report
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("load reports: %w", err)
		}
		rep := new(Report)
		if err := json.Unmarshal(data, rep); err != nil {
			return nil, fmt.Errorf("load report %s: %w", filepath.Base(file), err)
		}
		if rep.Name()+".json" != filepath.Base(file) {
			return nil, fmt.Errorf("load report %s: it is of %s", filepath.Base(file), rep.Name())
		}
		out = append(out, rep)
	}
	slices.SortFunc(out, func(a, b *Report) int {
		if a.Options.Overlap != b.Options.Overlap {
			if a.Options.Overlap {
				return 1
			}
			return -1
		}
		return int(a.Options.Seed) - int(b.Options.Seed) //nolint:gosec // small
	})
	return out, nil
}

// sparse is how many seconds lie between two samples in a file.
const sparse = 10

// encode writes a line for each field, and one for each element of a long list.
func (rep *Report) encode() ([]byte, error) {
	thin := *rep
	thin.Processes = nil
	for _, p := range rep.Processes {
		q := Process{Name: p.Name, Role: p.Role}
		for i, s := range p.Samples {
			if i%sparse == 0 || i == len(p.Samples)-1 {
				s.At, s.CPU = float64(int(s.At)), float64(int(s.CPU*1000))/1000
				q.Samples = append(q.Samples, s)
			}
		}
		thin.Processes = append(thin.Processes, q)
	}
	all, err := json.Marshal(&thin)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	dec := json.NewDecoder(bytes.NewReader(all))
	if _, err := dec.Token(); err != nil { // {
		return nil, err
	}
	sep := "{\n "
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%s%q: ", sep, name)
		sep = ",\n "
		var list []json.RawMessage
		if value[0] != '[' || len(value) < 200 {
			out.Write(value)
			continue
		}
		if err := json.Unmarshal(value, &list); err != nil {
			return nil, errors.Join(fmt.Errorf("encode %v", name), err)
		}
		for i, one := range list {
			out.WriteString([]string{"[\n  ", ",\n  "}[min(i, 1)])
			out.Write(one)
		}
		out.WriteString("\n ]")
	}
	out.WriteString("\n}\n")
	return out.Bytes(), nil
}

// page is README.md of a folder with reports.
func page(reports []*Report) string {
	var b strings.Builder
	b.WriteString(`# Continuity

What clients of a whole Pointsman, with a real Apache Kafka, etcd, routers and nodes, received while processes were killed,
frozen, restarted and cut off at random, compared with the topic, read independently afterwards. The programs that write
this page: [integration/continuity](../../integration/continuity). Each run is repeated by the command above its table; the
seed draws the faults and their order.

- **Faults in turn**: each fault begins after the one before has healed: every client has received something made after the
  fault's end, and every partition is owned. **Overlapping faults**: up to four at a time; pauses are not told apart then.
- **Pause**: per client and fault the longest time from a record's arrival at a plain consumer beside the product to its
  arrival at the client, less the usual (median) one before the first fault: what the product adds to what Kafka and the
  machine cost. *met*: clients whose node or router the fault met; *others*: p99 of the rest. *probe*: how late that plain
  consumer itself was at most in the same windows. *quiet*: windows in which nothing was done, measured alike. Kafka restarts
  are measured from the plain consumer's first record after them.
- Clients that stop reading or change their router on purpose (one in 33) are judged on everything but pauses.
- Router exits break their clients' sockets, as they must: the clients come back with their cursors. No figure is promised
  for that pause.
`)
	for _, rep := range reports {
		rep.section(&b)
	}
	return b.String()
}

func (rep *Report) section(b *strings.Builder) {
	o, c := rep.Options, rep.Counts
	mode := "faults in turn"
	if o.Overlap {
		mode = "overlapping faults"
	}
	fmt.Fprintf(b, "\n## Seed %d, %s\n\n```sh\n%s\n```\n\n", o.Seed, mode, rep.Command)
	fmt.Fprintf(b, "Version %s, %s. %s. %d clients, %d routers, %d nodes, %d partitions, %.0f records a second; %.0f s, **%d faults**.\n\n",
		rep.Version, rep.Began.UTC().Format("2006-01-02"), rep.Machine, o.Clients, o.Routers, o.Nodes, o.Partitions, o.Rate, rep.Took, rep.made())
	b.WriteString("| due | received | lost | repeated | reordered | foreign | corrupt | wrong cursors | gaps | sockets broken |\n|---|---|---|---|---|---|---|---|---|---|\n")
	fmt.Fprintf(b, "| %d | %d |", c.Due, c.Received)
	for _, kind := range []string{"lost", "repeated", "reordered", "foreign", "corrupt", "cursors", "gaps"} {
		fmt.Fprintf(b, " %d |", c.Offences[kind])
	}
	fmt.Fprintf(b, " %d |\n", c.Offences["broken"]+c.Offences["unopened"])
	if !o.Overlap {
		b.WriteString("\n| fault | times | pauses (met) | p50 | p99 | longest | others p99 | probe | promised p99 |\n|---|---|---|---|---|---|---|---|---|\n")
		for _, p := range rep.Pauses {
			limit := "-"
			if p.Bound > 0 {
				limit = "<= " + short(p.Bound)
			}
			if p.Missed() {
				limit += " **missed**"
			}
			fmt.Fprintf(b, "| %s | %d | %d | %s | %s | %s | %s | %s | %s |\n", p.Kind, p.Faults, p.Affected, short(p.P50), short(p.P99), short(p.Max), short(p.Others), short(p.Probe), limit)
		}
		fmt.Fprintf(b, "\nEach client's longest delay outside the faults: p50 %s, p99 %s, longest %s.\n", short(rep.Between.P50), short(rep.Between.P99), short(rep.Between.Max))
	} else {
		fmt.Fprintf(b, "\n%s.\n", kindsMade(rep))
	}
	fmt.Fprintf(b, "\nDelay of a record: p50 %s, p99 %s before the first fault; p50 %s, p99 %s, longest %s over the whole run. ",
		short(rep.Baseline.P50), short(rep.Baseline.P99), short(rep.Delays.P50), short(rep.Delays.P99), short(rep.Delays.Max))
	fmt.Fprintf(b, "The machine was busy with routers and nodes %.0f %%, clients and producers %.0f %%, Kafka and etcd %.0f %%, others %.0f %%.\n",
		100*rep.Busy.Product, 100*rep.Busy.Clients, 100*rep.Busy.Backend, 100*rep.Busy.Others)
	for i, s := range rep.Slopes {
		if i == 0 {
			b.WriteString("\n| process | from | to | memory per hour | goroutines per hour | judged |\n|---|---|---|---|---|---|\n")
		}
		judged := "no"
		if s.Judged {
			judged = fmt.Sprintf("< %.0f %%", Steep)
		}
		fmt.Fprintf(b, "| %s | %.0f s | %.0f s | %+.1f %% | %+.1f %% | %s |\n", s.Process, s.From, s.To, s.RSS, s.Goroutines, judged)
	}
	for _, f := range rep.Failed {
		fmt.Fprintf(b, "\n**Failed**: %s\n", strings.ReplaceAll(f, "\n", " "))
	}
	b.WriteString("\n")
	for _, plot := range plotsOf(rep) {
		fmt.Fprintf(b, "![%s](%s-%s.svg)\n", plot, rep.Name(), plot)
	}
}

// kindsMade counts the faults of a run by kind.
func kindsMade(rep *Report) string {
	var words []string
	for _, kind := range Kinds() {
		n := 0
		for _, f := range rep.Faults {
			if f.Kind == kind {
				n++
			}
		}
		if n > 0 {
			words = append(words, fmt.Sprintf("%s %d", kind, n))
		}
	}
	return "Faults: " + strings.Join(words, ", ")
}

func plotsOf(rep *Report) []string {
	if rep.Options.Overlap {
		return []string{"timeline", "memory"}
	}
	return []string{"pauses", "timeline", "memory"}
}
