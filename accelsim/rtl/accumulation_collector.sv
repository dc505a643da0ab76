`timescale 1ns / 1ps
// accumulation_collector: two banks of D entries of L psums, each bank with one read and one write port.
// docs/machine.md and docs/timing.md. A step reads its entry ACCUMULATE_LATENCY - 1 cycles before it writes
// the entry; the drain reads the same port, a slice of an entry a cycle: the bank reuse rule keeps the two apart.
// BY_LANE each lane has enables of its own, and where one does not read its read register holds
// (docs/counts.md, Gating).
module accumulation_collector #(
    parameter int DEPTH = 16,
    parameter int WIDTH = 384,  // L psums
    parameter int SLICES = 1,
    parameter int ACCUMULATE_LATENCY = 2,
    parameter bit BY_LANE = 1'b0,
    parameter int LANES = 1,  // of enables: 1, or L by lane
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1,
    parameter int SLICE_BITS = SLICES > 1 ? $clog2(SLICES) : 1
) (
    input  logic                  clk,
    input  logic                  step_read,  // not set for g = 0, which adds to zero
    input  logic [     LANES-1:0] step_lanes,  // of the read register, set in steps alone; all 1 if not BY_LANE
    input  logic                  step_read_bank,
    input  logic [ENTRY_BITS-1:0] step_read_entry,
    output logic [     WIDTH-1:0] step_psums,  // ACCUMULATE_LATENCY - 1 cycles later; else 0
    input  logic                  write,
    input  logic [     LANES-1:0] write_lanes,
    input  logic                  write_bank,
    input  logic [ENTRY_BITS-1:0] write_entry,
    input  logic [     WIDTH-1:0] write_psums,
    input  logic                  drain_read,
    input  logic                  drain_bank,
    input  logic [ENTRY_BITS-1:0] drain_entry,
    input  logic [SLICE_BITS-1:0] drain_slice,
    output logic [WIDTH/SLICES-1:0] drain_psums
);
  localparam int LANE_BITS = WIDTH / LANES;

  logic [2*WIDTH-1:0] bank_psums;
  for (genvar b = 0; b < 2; b++) begin : banks
    logic [WIDTH-1:0] entries[0:DEPTH-1];
    logic [ENTRY_BITS-1:0] read_entry;
    assign read_entry = (drain_read && drain_bank == 1'(b)) ? drain_entry : step_read_entry;
    assign bank_psums[b*WIDTH+:WIDTH] = entries[read_entry];
    always_ff @(posedge clk) begin
      for (int lane = 0; lane < LANES; lane++) begin
        if (write && write_bank == 1'(b) && write_lanes[lane]) begin
          entries[write_entry][lane*LANE_BITS+:LANE_BITS] <= write_psums[lane*LANE_BITS+:LANE_BITS];
        end
      end
    end
  end

  logic [WIDTH-1:0] drain_now;
  assign drain_now = drain_bank ? bank_psums[WIDTH+:WIDTH] : bank_psums[0+:WIDTH];
  if (SLICES == 1) begin : entry_at_once
    assign drain_psums = drain_now;
    logic unused;
    assign unused = &{1'b0, drain_slice};
  end else begin : sliced
    assign drain_psums = drain_now[drain_slice*(WIDTH/SLICES)+:WIDTH/SLICES];
  end

  logic [WIDTH-1:0] read_now;
  assign read_now = !step_read ? '0 : step_read_bank ? bank_psums[WIDTH+:WIDTH] : bank_psums[0+:WIDTH];
  if (BY_LANE) begin : held_by_lane  // ACCUMULATE_LATENCY is 2
    logic [WIDTH-1:0] read_register;
    always_ff @(posedge clk) begin
      for (int lane = 0; lane < LANES; lane++) begin
        if (step_lanes[lane]) read_register[lane*LANE_BITS+:LANE_BITS] <= read_now[lane*LANE_BITS+:LANE_BITS];
      end
    end
    assign step_psums = read_register;
  end else begin : together
    delay #(
        .WIDTH (WIDTH),
        .CYCLES(ACCUMULATE_LATENCY - 1)
    ) read_register (
        .clk(clk),
        .in (read_now),
        .out(step_psums)
    );
    logic unused;
    assign unused = &{1'b0, step_lanes};
  end
endmodule
