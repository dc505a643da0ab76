`timescale 1ns / 1ps
// ppu_gather: z-values of a vector, slice by slice and lane group by lane group, until its largest |z| is known.
// docs/timing.md (Drain), docs/numerics.md (PPU, `vmax`). With one slice and one lane group it is a wire.
module ppu_gather #(
    parameter int DEPTH = 16,
    parameter int LANES = 16,   // of a slice
    parameter int VECTORS = 1,  // of a slice
    parameter int SLICES = 1,   // of an entry
    parameter int SPREAD = 1,   // slices over which a vector spreads in an entry
    parameter int GROUPS = 1,   // lane groups of a unit whose outputs are staged
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1,
    parameter int SLICE_BITS = SLICES > 1 ? $clog2(SLICES) : 1,
    parameter int GROUP_BITS = $clog2(GROUPS + 1),
    parameter int TAG_BITS = ENTRY_BITS + SLICE_BITS + 2 * GROUP_BITS + 3,
    parameter int Z = LANES * 24
) (
    input  logic                  clk,
    input  logic                  reset,
    input  logic [           1:0] go_in,        // {a drain step, with a slice of its own entry}
    input  logic [  TAG_BITS-1:0] tag_in,       // ppu's
    input  logic [         Z-1:0] z_in,
    input  logic [VECTORS*23-1:0] own_largest,  // of the slice
    output logic [           2:0] go_out,       // {a slice leaves, the first of its vector, the last of the tile}
    output logic [SLICE_BITS-1:0] slice_leave,
    output logic [         Z-1:0] leaving,
    output logic [VECTORS*23-1:0] largest       // of the vectors whose first slice leaves
);
  logic [ENTRY_BITS-1:0] pixel_in;
  logic [SLICE_BITS-1:0] slice_in;
  logic [GROUP_BITS-1:0] group_in, lane_group_in;
  logic group_last_in, output_in, tile_last_in;
  assign {pixel_in, slice_in, group_in, lane_group_in, group_last_in, output_in, tile_last_in} = tag_in;

  // The largest |z| of a vector, slice by slice and lane group by lane group.
  logic vector_first, vector_last;  // the vector's first and last slice of this entry
  logic [22:0] largest_before;      // of what came of it before this slice
  logic [22:0] largest_of_groups;   // of its lane groups before this one
  assign vector_first = 32'(slice_in) % SPREAD == 0;
  assign vector_last = 32'(slice_in) % SPREAD == SPREAD - 1;
  if (SPREAD == 1 && GROUPS == 1) begin : one_slice
    assign largest = own_largest;
    logic unused;
    assign unused = &{1'b0, largest_before};
  end else begin : more_slices
    assign largest = largest_before > own_largest ? largest_before : own_largest;
  end

  // What leaves in this cycle came SPREAD - 1 cycles ago, when the vector's last slice was yet to come.
  logic [1:0] go_leave;
  logic [TAG_BITS-1:0] tag_leave;
  logic [ENTRY_BITS-1:0] pixel_leave;
  logic [GROUP_BITS-1:0] group_leave, lane_group_leave;
  logic group_last_leave, output_leave, tile_last_leave;
  assign {pixel_leave, slice_leave, group_leave, lane_group_leave, group_last_leave, output_leave, tile_last_leave} =
      tag_leave;
  logic [Z-1:0] own_leaving;  // of the lane group that is drained, not staged
  if (SPREAD == 1) begin : at_once
    assign go_leave = go_in;
    assign tag_leave = tag_in;
    assign own_leaving = z_in;
    logic unused;
    assign unused = &{1'b0, clk, reset};
  end else begin : spread
    localparam int HOLD_BITS = $clog2(SPREAD);
    logic [1:0] go_line[0:SPREAD-2];
    logic [TAG_BITS-1:0] tag_line[0:SPREAD-2];
    logic [Z-1:0] hold[0:SPREAD-1];
    always_ff @(posedge clk) begin
      for (int i = 0; i < SPREAD - 1; i++) begin
        go_line[i] <= reset ? '0 : i == 0 ? go_in : go_line[i==0?0 : i-1];
        tag_line[i] <= i == 0 ? tag_in : tag_line[i==0?0 : i-1];
      end
      if (go_in[0]) hold[HOLD_BITS'(32'(slice_in)%SPREAD)] <= z_in;
    end
    assign go_leave = go_line[SPREAD-2];
    assign tag_leave = tag_line[SPREAD-2];
    assign own_leaving = hold[HOLD_BITS'(32'(slice_leave)%SPREAD)];
  end
  if (SPREAD > 1) begin : running
    logic [22:0] largest_so_far;
    always_ff @(posedge clk) begin
      if (go_in[0]) largest_so_far <= largest;
    end
    assign largest_before = vector_first ? largest_of_groups : largest_so_far;
  end else begin : not_running
    assign largest_before = largest_of_groups;
  end

  if (GROUPS > 1) begin : staged
    logic [Z-1:0] staged_values;
    logic [22:0] largest_staged;
    ppu_staging #(
        .DEPTH (DEPTH),
        .GROUPS(GROUPS),
        .SLICES(SLICES),
        .LANES (LANES)
    ) ppu_staging (
        .clk(clk),
        .write(go_in[1] && !output_in),
        .write_last(vector_last),
        .pixel(pixel_in),
        .write_group(lane_group_in),
        .write_slice(slice_in),
        .write_values(z_in),
        .write_largest(largest),
        .read_pixel(pixel_leave),
        .read_group(group_leave),
        .read_slice(slice_leave),
        .read_values(staged_values),
        .read_largest(largest_staged)
    );
    assign largest_of_groups = lane_group_in == '0 ? '0 : largest_staged;
    assign leaving = group_last_leave ? own_leaving : staged_values;
  end else begin : whole
    assign largest_of_groups = '0;
    assign leaving = own_leaving;
    logic unused;
    assign unused = &{1'b0, pixel_in, lane_group_in, output_in, pixel_leave, group_leave, group_last_leave};
  end
  logic unused_tags;
  assign unused_tags =
      &{1'b0, group_in, group_last_in, tile_last_in, lane_group_leave, vector_first, vector_last};
  assign go_out = {
    go_leave[1] && output_leave,
    go_leave[0] && output_leave && 32'(slice_leave) % SPREAD == 0,
    tile_last_leave
  };
endmodule
