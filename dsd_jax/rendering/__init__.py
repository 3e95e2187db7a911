"""Rendering: cameras, rays, sampling along rays, volume rendering, shading, meshes."""
