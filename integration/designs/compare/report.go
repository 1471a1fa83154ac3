// Package compare does the same work with every design in turn, measures what it costs and what its clients see when
// something dies, and writes the page that says which to choose.
package compare

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Report is one comparison.
type Report struct {
	Began   time.Time `json:"began"`
	Took    float64   `json:"took_s"`
	Command string    `json:"command"`
	Quick   bool      `json:"quick"`
	Machine string    `json:"machine"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Version string    `json:"version"`
	Load    float64   `json:"load_average_before"`
	Rounds  int       `json:"rounds"`
	Rate    float64   `json:"records_per_second"`
	Size    int       `json:"bytes_per_value"`
	// Partitions of every topic: no more processes than that can share one.
	Partitions int      `json:"partitions"`
	Seconds    float64  `json:"seconds_per_sample"`
	Samples    []Sample `json:"samples"`
	Faults     []Fault  `json:"faults"`
	Fits       []Fit    `json:"fits"`
	// Orderings are the only comparisons that the page may state: those that held in every sample.
	Orderings []Ordering `json:"orderings"`
}

// Sample is one design at one size.
type Sample struct {
	Design  string `json:"design"`
	Round   int    `json:"round"`
	Servers int    `json:"servers"`
	Others  int    `json:"others"` // routers or redistributors
	Clients int    `json:"clients"`

	Produced  int64 `json:"produced"`  // records, while CPU was measured
	Delivered int64 `json:"delivered"` // records that clients received in the same time

	CPU         float64 `json:"cpu_us"`            // of all its processes, a cache included, per delivered record
	KafkaCPU    float64 `json:"kafka_cpu_us"`      // of the broker, per delivered record
	Ingest      float64 `json:"ingest_per_reader"` // bytes a second from Kafka, for each process of the tier that reads the topic
	Reads       float64 `json:"kafka_reads"`       // bytes a second that all processes read from Kafka
	Between     float64 `json:"between_tiers"`     // bytes a second
	Backchannel float64 `json:"backchannel"`       // bytes a second, to and from
	Memory      float64 `json:"bytes_per_client"`  // resident, gained by its processes while clients came
	Connect     float64 `json:"connect_us"`        // CPU for each client that came
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Outcome
}

// Outcome is the checker's verdict.
type Outcome struct {
	Due       int64 `json:"due"`
	Lost      int64 `json:"lost"`
	Repeated  int64 `json:"repeated"`
	Reordered int64 `json:"reordered"`
	Broken    int64 `json:"sockets_broken"`
	Unopened  int64 `json:"unopened"` // connections that ended without a hello; they are broken ones, too
	Other     int64 `json:"other"`    // gaps, wrong cursors, foreign and corrupt records

	First       string `json:"first,omitempty"` // of what is wrong with records
	FirstBroken string `json:"first_broken,omitempty"`
	Failed      string `json:"failed,omitempty"`
}

// Fault is one design under one fault.
type Fault struct {
	Design  string  `json:"design"`
	Round   int     `json:"round"`
	Fault   string  `json:"fault"`
	Clients int     `json:"clients"`
	Pause   float64 `json:"longest_pause_ms"` // that any record was late
	P99     float64 `json:"p99_pause_ms"`     // over clients, of the longest of each
	Latest  string  `json:"latest,omitempty"` // whose pause was the longest
	Outcome
}

// Write writes the report.
func (r *Report) Write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write the comparison: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644) //nolint:gosec // for everybody to read
}

// Read reads one.
func Read(path string) (*Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &r, nil
}

// wrong says in a line why a sample's figures are not what the design costs; empty when nothing was wrong.
func (s *Sample) wrong() string {
	if s.Failed != "" {
		return "failed: " + line(s.Failed)
	}
	switch o := &s.Outcome; {
	case o.Lost+o.Repeated+o.Reordered+o.Other > 0:
		return "wrong: " + line(o.First)
	case o.Broken+o.Unopened > 0: // nobody did anything to them
		return fmt.Sprintf("wrong: %d sockets broken: %s", o.Broken+o.Unopened, line(o.FirstBroken))
	}
	return ""
}

// Wrong reports whether something was wrong.
func (s *Sample) Wrong() bool { return s.wrong() != "" }

// kept is the least share of what is produced that a design which keeps up delivers in the same time.
const kept = 0.99

// Behind reports whether records came faster than they went out.
func (s *Sample) Behind() bool { return float64(s.Delivered) < kept*float64(s.Produced) }

// line is the first line of a text, short enough for a table and without what would end a cell.
func line(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	const most = 160
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "..."
	}
	return strings.ReplaceAll(text, "|", "/")
}

// Err is what went wrong where nothing was done to a design, and every measurement that failed.
func (r *Report) Err() error {
	var errs []error
	for i := range r.Samples {
		if s := &r.Samples[i]; s.wrong() != "" {
			errs = append(errs, fmt.Errorf("%s with %d servers and %d clients, round %d: %d lost, %d repeated, %d reordered, %d of other kinds, %d sockets broken; %s",
				s.Design, s.Servers, s.Clients, s.Round, s.Lost, s.Repeated, s.Reordered, s.Other, s.Broken, s.wrong()))
		}
	}
	for i := range r.Faults {
		if f := &r.Faults[i]; f.Failed != "" {
			errs = append(errs, fmt.Errorf("%s, %s, round %d: %s", f.Design, f.Fault, f.Round, f.Failed))
		}
	}
	return errors.Join(errs...)
}

// barRecords is how many records each design must deliver for the bar.
const barRecords = 100_000

// Bar is what keeps the designs from delivering what is due, and all of it, where nothing is done to them.
func (r *Report) Bar(designs []string) error {
	errs := []error{r.Err()}
	for _, d := range designs {
		seen := false
		for i := range r.Samples {
			s := &r.Samples[i]
			if s.Design != d {
				continue
			}
			seen = true
			if s.Due < barRecords {
				errs = append(errs, fmt.Errorf("%s: %d records were due, the bar is %d", d, s.Due, barRecords))
			}
		}
		if !seen {
			errs = append(errs, fmt.Errorf("%s was not measured", d))
		}
	}
	return errors.Join(errs...)
}
