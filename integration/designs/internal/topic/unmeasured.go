package topic

import "github.com/rcrowley/go-metrics"

// unmeasured is a registry in which nothing is counted, as the product's: sarama keeps meters and histograms for each
// connection and kind of request, and nobody here could read them.
type unmeasured struct{}

var _ metrics.Registry = unmeasured{}

// GetOrRegister answers what asks for a metric by how it would be made.
func (unmeasured) GetOrRegister(_ string, metric any) any {
	switch metric.(type) {
	case func() metrics.Meter:
		return metrics.NilMeter{}
	case func() metrics.Histogram:
		return metrics.NilHistogram{}
	case func() metrics.Counter:
		return metrics.NilCounter{}
	}
	return metrics.NewRegistry().GetOrRegister("", metric) // of a kind that sarama did not use; it is dropped after use
}

func (unmeasured) Each(func(string, any))            {}
func (unmeasured) Get(string) any                    { return nil }
func (unmeasured) GetAll() map[string]map[string]any { return nil }
func (unmeasured) Register(string, any) error        { return nil }
func (unmeasured) RunHealthchecks()                  {}
func (unmeasured) Unregister(string)                 {}
func (unmeasured) UnregisterAll()                    {}
