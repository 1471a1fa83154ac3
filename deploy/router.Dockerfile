# The router's image. Two ways, one result:
#   docker build -f deploy/router.Dockerfile .                     builds from source (the default target)
#   make images                                                    packs bin/router, where no image can be pulled
# The stages that need nothing come first: the classic builder stops at its target and never looks further.

FROM scratch AS prebuilt
COPY bin/router /router
COPY bin/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENV POINTSMAN_ADMIN=0.0.0.0:8081
EXPOSE 8080 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/router", "healthcheck"]
ENTRYPOINT ["/router"]

FROM golang:1.26 AS build
WORKDIR /src
COPY . .
ARG VERSION=devel
RUN cd router && GOWORK=off CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X github.com/pointsmanhq/pointsman/pkg/buildinfo.version=${VERSION}" \
      -o /router ./cmd/router

FROM scratch AS release
COPY --from=build /router /router
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENV POINTSMAN_ADMIN=0.0.0.0:8081
EXPOSE 8080 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/router", "healthcheck"]
ENTRYPOINT ["/router"]
