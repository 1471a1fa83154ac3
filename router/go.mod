module github.com/pointsmanhq/pointsman/router

go 1.26.0

require github.com/pointsmanhq/pointsman/pkg v0.0.0

replace github.com/pointsmanhq/pointsman/pkg => ../pkg

require github.com/pointsmanhq/pointsman/proto v0.0.0

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/prometheus/client_golang v1.25.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
)

replace github.com/pointsmanhq/pointsman/proto => ../proto
